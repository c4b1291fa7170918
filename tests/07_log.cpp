// Chapter 7: a replica's history. What is durable is compared with a plain model after a crash at
// every point.

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "coord.hpp"
#include "support.hpp"

namespace {

using coord::Bytes;
using coord::BytesView;
using coord::Errc;
using coord::Log;
using coord::LogPosition;
using coord::MemoryStorage;
using coord::PeerId;
using coord::Sequence;
using coord::Txn;
using coord::Writer;
using coord::Zxid;

// An entry that follows `last`.
Bytes entry_after(LogPosition last, Zxid zxid, BytesView body, Txn& txn) {
    txn = Txn{};
    txn.zxid = zxid, txn.previous = last.zxid, txn.previous_crc = last.crc;
    txn.time_ms = 1000, txn.session = coord::SessionId{5}, txn.cxid = 6, txn.confirmed = 4;
    txn.op = coord::OpCode::set, txn.body = body;
    Bytes record;
    coord::encode_entry(txn, record);
    return record;
}

void append(Log& log, Zxid zxid, BytesView body = "body") {
    Txn txn;
    const Bytes record = entry_after(log.last(), zxid, body, txn);
    REQUIRE(log.append(record, txn) == Errc::ok);
}

void settle(Log& log) {
    REQUIRE(log.flush() == Errc::ok);
    REQUIRE(log.refresh_durable() == Errc::ok);
    log.audit();
}

LogPosition position_of(const Log& log, Zxid zxid) { return {zxid, log.crc_at(zxid)}; }

Zxid zxid_after(const Log& log, Zxid zxid) {
    Txn txn;
    REQUIRE(coord::decode_entry(log.entry_after(zxid), txn) == Errc::ok);
    return txn.zxid;
}

BytesView entry_at(const Log& log, Zxid zxid) {
    REQUIRE(log.contains(zxid));
    return log.entry_after(log.position_at_or_before(Zxid{zxid.value - 1}).zxid);
}

// The zxids of the entries in memory.
std::vector<Zxid> entries_of(const Log& log) {
    std::vector<Zxid> zxids;
    for (Zxid at = log.base(); at < log.last().zxid;) {
        zxids.push_back(at = zxid_after(log, at));
    }
    return zxids;
}

// A storage whose contents a test writes and changes: pairs of (is a snapshot, bytes).
struct Tape : coord::Storage, coord::RecoverySink {
    std::vector<std::pair<bool, Bytes>> items;
    Bytes begun;
    Sequence first = 1;
    Errc open_error = Errc::ok;

    void on_record(Sequence, BytesView record) override { items.emplace_back(false, record); }
    void on_snapshot(Sequence, BytesView head, std::uint64_t) override {
        items.emplace_back(true, head);
    }
    Errc open(coord::RecoverySink& sink, const coord::StorageOwner&) override {
        if (open_error != Errc::ok) return open_error;
        for (std::size_t i = 0; i < items.size(); i++) {
            const Bytes& bytes = items[i].second;
            if (items[i].first) {
                sink.on_snapshot(first + i, BytesView(bytes).substr(0, 64), bytes.size());
            }
            if (!items[i].first) sink.on_record(first + i, items[i].second);
        }
        return Errc::ok;
    }
    Errc append(BytesView record) override {
        items.emplace_back(false, record);
        return Errc::ok;
    }
    Errc begin_snapshot() override { return begun.clear(), Errc::ok; }
    Errc write_snapshot(BytesView piece) override { return begun += piece, Errc::ok; }
    Errc end_snapshot(Sequence, bool) override {
        items.emplace_back(true, begun);
        return Errc::ok;
    }
    Errc read_snapshot(Sequence snapshot, std::uint64_t offset, std::size_t size,
                       Bytes& out) override {
        const Bytes& from = snapshot == 0 ? begun : items[snapshot - first].second;
        out += BytesView(from).substr(offset, size);
        return Errc::ok;
    }
    Errc flush() override { return Errc::ok; }
    Sequence appended() const override { return first + items.size() - 1; }
    Sequence durable() const override { return appended(); }
    Errc health() const override { return Errc::ok; }
    std::uint64_t id() const override { return 1; }
};

std::string reason_of(Tape tape) {
    Log log(tape);
    const Errc error = log.open();
    const std::string reason = log.reason();
    CHECK((error == Errc::ok) == reason.empty());
    const bool is_newer = reason.find("newer version") != std::string::npos;
    if (tape.open_error == Errc::ok && error != Errc::ok) {
        CHECK(error == (is_newer ? Errc::other_version : Errc::corrupt));  // L6
    }
    return reason;
}

// Five entries, a promise and an epoch: records 1 and 2 are the epochs, 3 to 7 the entries.
Tape five_entries() {
    Tape tape;
    Log log(tape);
    REQUIRE(log.open() == Errc::ok);
    REQUIRE(log.accept_epoch(1, PeerId{2}) == Errc::ok);
    REQUIRE(log.set_current_epoch(1) == Errc::ok);
    for (std::uint64_t i = 1; i <= 5; i++) append(log, Zxid{1, i});
    return tape;
}

Bytes framed(std::uint8_t kind, BytesView fields) {
    Bytes record;
    Writer out(record);
    out.u32(static_cast<std::uint32_t>(9 + fields.size())), out.u32(0), out.u8(kind);
    out.raw(fields);
    out.patch_u32(4, coord::crc32c(BytesView(record).substr(8)));
    return record;
}

Bytes u32_bytes(std::uint32_t value) {
    Bytes out;
    Writer(out).u32(value);
    return out;
}

Bytes u64_bytes(std::uint64_t value) {
    Bytes out;
    Writer(out).u64(value);
    return out;
}

// The model: the whole history since its start, as plain vectors.
struct Plain {
    std::vector<LogPosition> history;
    LogPosition start;            // of the installed snapshot that the history goes on from
    Log::Epochs epochs;
    Zxid snapshot;
    Bytes state;

    LogPosition last() const { return history.empty() ? start : history.back(); }
    bool has(Zxid zxid) const {
        if (zxid == start.zxid) return true;
        return std::any_of(history.begin(), history.end(),
                           [&](const LogPosition& p) { return p.zxid == zxid; });
    }
};

// A log, its storage, and what the state was after each record that the storage was given.
struct Driver {
    MemoryStorage disk;
    std::unique_ptr<Log> log;
    Plain plain;
    std::map<Sequence, Plain> states;
    std::uint64_t counter = 0;
    std::uint32_t epoch = 0;
    coord::Time now;

    Driver() { open(); }
    void open() {
        log = std::make_unique<Log>(disk);
        const Errc error = log->open();
        CHECK(std::string(log->reason()).empty());
        REQUIRE(error == Errc::ok);
        log->audit();
        states[disk.appended()] = plain;
    }
    void wrote() { states[disk.appended()] = plain; }
    void add(std::size_t bytes = 20) {
        append(*log, Zxid{(std::max)(epoch, 1u), ++counter}, Bytes(bytes, 'b'));
        plain.history.push_back(log->last());
        wrote();
    }
    void promise() {
        epoch += 1;
        const coord::Duration lease = coord::microseconds(epoch % 4);  // every fourth has none
        pass();
        REQUIRE(log->accept_epoch(epoch, PeerId{epoch % 3 + 1}, lease) == Errc::ok);
        plain.epochs.accepted = epoch, plain.epochs.accepted_from = PeerId{epoch % 3 + 1};
        plain.epochs.lease = lease;
        wrote();
    }
    // L7: so long that no lease lasts any more.
    void pass() {
        for (int i = 0; i < 2; i++) log->set_time(now = now + coord::milliseconds(1));
    }
    void current() {
        if (plain.epochs.current == plain.epochs.accepted) return;
        REQUIRE(log->set_current_epoch(plain.epochs.accepted) == Errc::ok);
        plain.epochs.current = plain.epochs.accepted;
        wrote();
    }
    void cut(std::size_t count) {  // the newest entries, but none that the snapshot covers
        while (count > 0 && !plain.history.empty() &&
               plain.history.back().zxid > plain.snapshot &&
               plain.history.back().zxid > log->base()) {
            plain.history.pop_back();
            count -= 1;
        }
        REQUIRE(log->truncate(plain.last().zxid) == Errc::ok);
        wrote();
    }
    void snapshot(std::size_t before_end, std::size_t kept) {
        if (plain.history.size() <= before_end) return;
        const LogPosition at = plain.history[plain.history.size() - 1 - before_end];
        if (at.zxid <= plain.snapshot || at.zxid > log->durable_last()) return;
        plain.snapshot = at.zxid, plain.state = "state " + std::to_string(at.zxid.value);
        REQUIRE(support::take_snapshot(*log, at, plain.state, kept) == Errc::ok);
        wrote();
    }
    void install() {
        counter += 10;
        plain.start = LogPosition{Zxid{(std::max)(epoch, 1u), counter}, 777};
        plain.history.clear();
        plain.snapshot = plain.start.zxid, plain.state = "installed";
        REQUIRE(support::install_snapshot(*log, plain.start, plain.state) == Errc::ok);
        wrote();
    }
    void flush() { REQUIRE(log->flush() == Errc::ok); }

    // L2: what counts as durable would be there after a crash now.
    void judge_durable() const {
        const Plain& on_disk = states.at(disk.durable());
        const Zxid durable = log->durable_last();
        CHECK((durable == Zxid{} || on_disk.has(durable)));
        CHECK((durable == Zxid{} || plain.has(durable)));
        CHECK(log->durable_epochs().accepted <= on_disk.epochs.accepted);
        CHECK(log->durable_epochs().current <= on_disk.epochs.current);
        if (disk.durable() == disk.appended() && !log->is_dirty() && !log->is_waiting()) {
            CHECK(durable == plain.last().zxid);
            CHECK(log->durable_epochs().accepted == plain.epochs.accepted);
            CHECK(log->durable_epochs().current == plain.epochs.current);
        }
    }
    void refresh() {
        REQUIRE(log->refresh_durable() == Errc::ok);
        log->audit();
        judge_durable();
    }
    void compare() const {
        CHECK(log->last().zxid == plain.last().zxid);
        CHECK(log->last().crc == plain.last().crc);
        CHECK(log->epochs().accepted == plain.epochs.accepted);
        CHECK(log->epochs().accepted_from == plain.epochs.accepted_from);
        CHECK(log->epochs().current == plain.epochs.current);
        CHECK(log->epochs().lease == plain.epochs.lease);
        CHECK(log->snapshot_position().zxid == plain.snapshot);
        CHECK(support::snapshot_of(*log) == plain.state);
        std::vector<Zxid> expected;
        for (const LogPosition& p : plain.history) {
            if (p.zxid > log->base()) expected.push_back(p.zxid);
        }
        CHECK(entries_of(*log) == expected);
        CHECK(log->base() <= (std::max)(plain.snapshot, plain.start.zxid));
        for (const LogPosition& p : plain.history) {
            if (p.zxid >= log->base()) CHECK(log->crc_at(p.zxid) == p.crc);
        }
        log->audit();
    }
    // The process dies now; `survivors` of what was not durable is on the disk all the same.
    void crash(std::size_t survivors) {
        log.reset();
        disk.crash(survivors);
        disk.stop_holding();
        REQUIRE(states.count(disk.appended()) == 1);
        plain = states.at(disk.appended());
        states.erase(states.upper_bound(disk.appended()), states.end());
        open();
        CHECK(log->durable_last() == log->last().zxid);
        CHECK_FALSE(log->is_dirty());
        epoch = (std::max)(epoch, plain.epochs.accepted);
        CHECK(log->is_leased() == (plain.epochs.lease > coord::Duration{}));  // L7
        compare();
    }
};

// One step of a scripted life; between them they do everything that a log can do.
void run_step(Driver& d, std::size_t step) {
    switch (step % 29) {
        case 0: d.promise(); break;
        case 1: d.add(); break;       // the initial history comes between promise and epoch
        case 2: d.add(100); break;
        case 3: d.current(); break;
        case 4: d.flush(); break;
        case 5: d.refresh(); break;
        case 6: d.add(); break;
        case 7: d.add(); break;
        case 8: d.cut(1); break;
        case 9: d.add(); break;
        case 10: d.flush(); break;
        case 11: d.refresh(); break;
        case 12: d.snapshot(1, 2); break;
        case 13: d.add(); break;
        case 14: d.flush(); break;
        case 15: d.refresh(); break;
        case 16: d.add(); break;
        case 17: d.flush(); break;
        case 18: d.cut(3); break;
        case 19: d.promise(); break;
        case 20: d.install(); break;
        case 21: d.add(); break;
        case 22: d.current(); break;
        case 23: d.flush(); break;
        case 24: d.refresh(); break;
        case 25: d.add(); break;
        case 26: d.flush(); break;
        case 27: d.refresh(); break;
        default: d.snapshot(0, 1); break;
    }
}

}  // namespace

TEST_SUITE("07 log") {

TEST_CASE("an empty log") {
    MemoryStorage disk;
    Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    CHECK(std::string(log.reason()).empty());
    CHECK(log.last().zxid == Zxid{});
    CHECK(log.last().crc == 0);
    CHECK(log.base() == Zxid{});
    CHECK(log.contains(Zxid{}));
    CHECK_FALSE(log.contains(Zxid{1}));
    CHECK(log.size() == 0);
    CHECK(support::snapshot_of(log).empty());
    CHECK(log.snapshot_position().zxid == Zxid{});
    CHECK(log.durable_last() == Zxid{});
    CHECK(log.epochs().accepted == 0);
    CHECK_FALSE(log.is_dirty());
    CHECK_FALSE(log.is_waiting());
    Zxid sent;
    CHECK(log.entries_after(Zxid{}, 1000, sent).empty());
    CHECK(log.flush() == Errc::ok);  // nothing to do
    CHECK(disk.appended() == 0);
    log.audit();
}

TEST_CASE("an entry is what was appended, chained to the one before") {
    MemoryStorage disk;
    Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    append(log, Zxid{1, 1}, "first");
    const std::uint32_t crc = log.last().crc;
    append(log, Zxid{1, 2}, "second");
    Txn txn;
    REQUIRE(coord::decode_entry(entry_at(log, Zxid{1, 2}), txn) == Errc::ok);
    CHECK(txn.zxid == Zxid{1, 2});
    CHECK(txn.previous == Zxid{1, 1});
    CHECK(txn.previous_crc == crc);
    CHECK(txn.time_ms == 1000);
    CHECK(txn.session == coord::SessionId{5});
    CHECK(txn.cxid == 6);
    CHECK(txn.confirmed == 4);
    CHECK(txn.op == coord::OpCode::set);
    CHECK(txn.body == "second");
    CHECK(log.crc_at(Zxid{1, 1}) == crc);
    CHECK(log.crc_at(Zxid{}) == 0);
    CHECK(zxid_after(log, Zxid{}) == Zxid{1, 1});
    CHECK(zxid_after(log, Zxid{1, 1}) == Zxid{1, 2});
    log.audit();
}

TEST_CASE("looking up what is there, what lies between, and what comes after") {
    MemoryStorage disk;
    Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    for (std::uint64_t i = 1; i <= 100; i++) append(log, Zxid{1, i * 10});
    CHECK(log.contains(Zxid{1, 500}));
    CHECK_FALSE(log.contains(Zxid{1, 505}));
    CHECK_FALSE(log.contains(Zxid{1, 1010}));
    CHECK_FALSE(log.contains(Zxid{2, 10}));
    CHECK(log.position_at_or_before(Zxid{1, 505}).zxid == Zxid{1, 500});
    CHECK(log.position_at_or_before(Zxid{1, 500}).zxid == Zxid{1, 500});
    CHECK(log.position_at_or_before(Zxid{1, 500}).crc == log.crc_at(Zxid{1, 500}));
    CHECK(log.position_at_or_before(Zxid{1, 9}).zxid == Zxid{});
    CHECK(log.position_at_or_before(Zxid{7, 0}).zxid == Zxid{1, 1000});
    CHECK(zxid_after(log, Zxid{1, 505}) == Zxid{1, 510});
    CHECK(zxid_after(log, Zxid{1, 3}) == Zxid{1, 10});
    CHECK(log.size() == 100);
}

TEST_CASE("entries_after: whole records, one at the least, no more than asked") {
    MemoryStorage disk;
    Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    for (std::uint64_t i = 1; i <= 10; i++) append(log, Zxid{1, i}, Bytes(38, 'x'));  // 100 each
    Zxid sent;
    CHECK(log.entries_after(Zxid{}, 1, sent).size() == 100);
    CHECK(sent == Zxid{1, 1});
    CHECK(log.entries_after(Zxid{}, 299, sent).size() == 200);
    CHECK(sent == Zxid{1, 2});
    CHECK(log.entries_after(Zxid{}, 300, sent).size() == 300);
    CHECK(sent == Zxid{1, 3});
    CHECK(log.entries_after(Zxid{1, 7}, 100000, sent).size() == 300);
    CHECK(sent == Zxid{1, 10});
    CHECK(log.entries_after(Zxid{1, 10}, 100000, sent).empty());
    const BytesView run = log.entries_after(Zxid{1, 4}, 200, sent);
    CHECK(run == Bytes(entry_at(log, Zxid{1, 5})) + Bytes(entry_at(log, Zxid{1, 6})));
}

TEST_CASE("entries_after: an end ends a run, wherever it is") {
    MemoryStorage disk;
    Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    for (std::uint64_t i = 1; i <= 10; i++) append(log, Zxid{1, i}, Bytes(38, 'x'));  // 100 each
    Zxid sent{9, 9};
    CHECK(log.entries_after(Zxid{1, 4}, 100000, sent, Zxid{1, 3}).empty());
    CHECK(log.entries_after(Zxid{1, 4}, 100000, sent, Zxid{1, 4}).empty());
    CHECK(sent == Zxid{9, 9});
    CHECK(log.entries_after(Zxid{1, 4}, 100000, sent, Zxid{1, 6}).size() == 200);
    CHECK(sent == Zxid{1, 6});
    CHECK(log.entries_after(Zxid{1, 4}, 199, sent, Zxid{1, 6}).size() == 100);
    CHECK(sent == Zxid{1, 5});
    CHECK(log.entries_after(Zxid{1, 4}, 100000, sent, Zxid{7, 1}).size() == 600);
    CHECK(sent == Zxid{1, 10});
}

TEST_CASE("entries_after: blocks end a run, and what is larger than a block has one of its own") {
    MemoryStorage disk;
    Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    std::uint64_t counter = 0;
    for (const std::size_t size : {40000u, 40000u, 10u, 200000u, 65474u, 65475u, 5u, 5u}) {
        counter += 1;
        append(log, Zxid{1, counter}, Bytes(size, static_cast<char>('a' + counter)));
    }
    Bytes all, expected;
    for (std::uint64_t i = 1; i <= counter; i++) expected += entry_at(log, Zxid{1, i});
    Zxid at;
    std::size_t runs = 0;
    while (at < log.last().zxid) {
        const BytesView run = log.entries_after(at, 100000000, at);
        REQUIRE_FALSE(run.empty());
        all += run, runs += 1;
    }
    CHECK(all == expected);
    CHECK(runs > 3);
    log.audit();
    REQUIRE(log.truncate(Zxid{1, 2}) == Errc::ok);
    append(log, Zxid{2, 1}, Bytes(70000, 'n'));
    append(log, Zxid{2, 2}, "small");
    log.audit();
    CHECK(log.size() == 4);
}

TEST_CASE("L3 epochs: recorded, kept, with the leader that they were promised to") {
    MemoryStorage disk;
    {
        Log log(disk);
        REQUIRE(log.open() == Errc::ok);
        REQUIRE(log.accept_epoch(3, PeerId{9}) == Errc::ok);
        CHECK(log.epochs().accepted == 3);
        CHECK(log.epochs().accepted_from == PeerId{9});
        CHECK(log.durable_epochs().accepted == 0);
        REQUIRE(log.set_current_epoch(3) == Errc::ok);
        CHECK(log.epochs().current == 3);
        CHECK(log.is_dirty());
        settle(log);
        CHECK(log.durable_epochs().accepted == 3);
        CHECK(log.durable_epochs().current == 3);
        REQUIRE(log.accept_epoch(7, PeerId{1}) == Errc::ok);
        settle(log);
    }
    Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    CHECK(log.epochs().accepted == 7);
    CHECK(log.epochs().accepted_from == PeerId{1});
    CHECK(log.epochs().current == 3);
    CHECK(log.durable_epochs().accepted == 7);
}

// Red when the format changes: see above. Without a lease the bytes are as if there were none.
TEST_CASE("golden: the bytes of a promise with a lease, and of snapshots that know it") {
    Tape tape;
    Log log(tape);
    REQUIRE(log.open() == Errc::ok);
    const coord::Duration lease = coord::microseconds(0x00051015);
    REQUIRE(log.accept_epoch(0x01020304, PeerId{0x0a0b0c0d}, lease) == Errc::ok);
    REQUIRE(log.set_current_epoch(0x01020303) == Errc::ok);
    append(log, Zxid{1, 2}, "xy");
    settle(log);
    REQUIRE(support::take_snapshot(log, position_of(log, Zxid{1, 2}), "state", 0) == Errc::ok);
    REQUIRE(support::install_snapshot(log, LogPosition{Zxid{2, 9}, 0x11223344}, "st") == Errc::ok);
    REQUIRE(tape.items.size() == 5);
    const auto item = [&](std::size_t i) { return support::hex(tape.items[i].second); };
    CHECK(item(0).substr(0, 8) + item(0).substr(16) ==
          "00000015" "03" "01020304" "0a0b0c0d" "00051015");
    CHECK(item(1).substr(0, 8) + item(1).substr(16) == "0000000d" "04" "01020303");
    CHECK(item(3).substr(0, 8) + item(3).substr(16) ==
          "00000026" "05" "0000010000000002" "70c67023" "01020304" "0a0b0c0d" "01020303" "00"
          "00051015" "7374617465");
    CHECK(item(4).substr(0, 8) + item(4).substr(16) ==
          "00000026" "05" "0000020000000009" "11223344" "01020304" "0a0b0c0d" "01020303" "01"
          "00051015" "7374");
    CHECK(support::snapshot_of(log) == "st");
}

TEST_CASE("L7 a lease lasts from its newest ping on, and a life that finds one keeps all of it") {
    using coord::milliseconds;
    MemoryStorage disk;
    {
        Log log(disk);
        REQUIRE(log.open() == Errc::ok);
        log.set_time(coord::Time{} + milliseconds(1000));
        REQUIRE(log.accept_epoch(3, PeerId{9}, milliseconds(300)) == Errc::ok);
        settle(log);
        CHECK(log.durable_epochs().lease == milliseconds(300));
        CHECK_FALSE(log.is_leased());  // nothing has been answered yet
        log.renew_lease();
        log.set_time(coord::Time{} + milliseconds(1100));
        log.renew_lease();
        log.set_time(coord::Time{} + milliseconds(1399));
        CHECK(log.is_leased());
        CHECK(log.leased_until() == coord::Time{} + milliseconds(1400));
        log.set_time(coord::Time{} + milliseconds(1400));
        CHECK_FALSE(log.is_leased());
        log.renew_lease();
        log.release_lease(2, PeerId{9});  // of another epoch
        log.release_lease(3, PeerId{8});  // and by another leader
        CHECK(log.is_leased());
        log.release_lease(3, PeerId{9});
        CHECK_FALSE(log.is_leased());
    }
    Log log(disk);  // its clock began anew
    REQUIRE(log.open() == Errc::ok);
    CHECK(log.epochs().lease == milliseconds(300));
    CHECK(log.is_leased());
    CHECK(log.leased_until() == coord::never);
    log.set_time(coord::Time{} + milliseconds(77));
    log.set_time(coord::Time{} + milliseconds(376));
    CHECK(log.is_leased());
    log.set_time(coord::Time{} + milliseconds(377));
    CHECK_FALSE(log.is_leased());
    REQUIRE(log.accept_epoch(4, PeerId{8}) == Errc::ok);
    settle(log);
    Log again(disk);
    REQUIRE(again.open() == Errc::ok);
    CHECK(again.epochs().lease == coord::Duration{});
    CHECK_FALSE(again.is_leased());
}

TEST_CASE("L7 a lease stands in an installed snapshot, and in one that is taken") {
    for (const bool installs : {false, true}) {
        CAPTURE(installs);
        MemoryStorage disk;
        Log log(disk);
        REQUIRE(log.open() == Errc::ok);
        REQUIRE(log.accept_epoch(2, PeerId{3}, coord::milliseconds(250)) == Errc::ok);
        for (std::uint64_t i = 1; i <= 4; i++) append(log, Zxid{1, i});
        settle(log);
        const Errc error =
            installs ? support::install_snapshot(log, LogPosition{Zxid{2, 50}, 1234}, "state")
                     : support::take_snapshot(log, position_of(log, Zxid{1, 4}), "state", 0);
        REQUIRE(error == Errc::ok);
        CHECK(support::snapshot_of(log) == "state");
        settle(log);
        Log again(disk);
        REQUIRE(again.open() == Errc::ok);
        CHECK(support::snapshot_of(again) == "state");
        CHECK(again.epochs().lease == coord::milliseconds(250));
        CHECK(again.is_leased());
    }
}

TEST_CASE("truncate: to the last is nothing, to zero is all; the chain goes on from there") {
    MemoryStorage disk;
    Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    for (std::uint64_t i = 1; i <= 5; i++) append(log, Zxid{1, i});
    const std::uint32_t crc = log.crc_at(Zxid{1, 2});
    const Sequence before = disk.appended();
    REQUIRE(log.truncate(Zxid{1, 5}) == Errc::ok);
    CHECK(disk.appended() == before);
    REQUIRE(log.truncate(Zxid{1, 2}) == Errc::ok);
    CHECK(disk.appended() == before + 1);
    CHECK(log.last().zxid == Zxid{1, 2});
    CHECK(log.last().crc == crc);
    append(log, Zxid{2, 1});
    settle(log);
    CHECK(log.size() == 3);
    REQUIRE(log.truncate(Zxid{}) == Errc::ok);
    CHECK(log.size() == 0);
    CHECK(log.durable_last() == Zxid{});
    append(log, Zxid{3, 1});
    settle(log);
    Log again(disk);
    REQUIRE(again.open() == Errc::ok);
    CHECK(entries_of(again) == std::vector<Zxid>{Zxid{3, 1}});
}

TEST_CASE("a snapshot keeps the entries asked for, and those after it") {
    MemoryStorage disk;
    Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    for (std::uint64_t i = 1; i <= 10; i++) append(log, Zxid{1, i});
    settle(log);
    REQUIRE(support::take_snapshot(log, position_of(log, Zxid{1, 8}), "state", 3) == Errc::ok);
    CHECK(log.base() == Zxid{1, 5});
    CHECK(log.size() == 5);
    CHECK(log.contains(Zxid{1, 5}));
    CHECK_FALSE(log.contains(Zxid{1, 4}));
    CHECK(support::snapshot_of(log) == "state");
    CHECK(log.snapshot_position().zxid == Zxid{1, 8});
    CHECK(log.snapshot_position().crc == log.crc_at(Zxid{1, 8}));
    CHECK(log.durable_last() == Zxid{1, 10});
    const std::size_t before = disk.bytes();
    settle(log);
    CHECK(disk.bytes() < before);  // the storage has been told what it may forget
    append(log, Zxid{1, 11});
    settle(log);
    REQUIRE(support::take_snapshot(log, position_of(log, Zxid{1, 11}), "later", 0) == Errc::ok);
    CHECK(log.base() == Zxid{1, 11});
    CHECK(log.size() == 0);
    settle(log);
    Log again(disk);
    REQUIRE(again.open() == Errc::ok);
    CHECK(support::snapshot_of(again) == "later");
    CHECK(again.base() == Zxid{1, 11});
    CHECK(again.last().crc == log.last().crc);
}

TEST_CASE("L8 what memory has forgotten the storage has, until a snapshot does") {
    for (const bool ends : {false, true}) {
        MemoryStorage disk;
        {
            Log log(disk);
            REQUIRE(log.open() == Errc::ok);
            for (std::uint64_t i = 1; i <= 8; i++) append(log, Zxid{1, i});
            settle(log);
            const LogPosition at = position_of(log, Zxid{1, 6});
            log.forget_through(Zxid{1, 6});
            CHECK(log.base() == Zxid{1, 6});
            CHECK(entries_of(log) == std::vector<Zxid>{Zxid{1, 7}, Zxid{1, 8}});
            REQUIRE(log.begin_snapshot(at) == Errc::ok);
            REQUIRE(log.write_snapshot("state of 6") == Errc::ok);
            append(log, Zxid{1, 9});
            settle(log);
            log.forget_through(Zxid{1, 9});  // more than the snapshot will have
            CHECK(log.size() == 0);
            CHECK(log.last().zxid == Zxid{1, 9});
            log.audit();
            if (ends) REQUIRE(log.end_snapshot(1000) == Errc::ok);
            append(log, Zxid{1, 10});
            settle(log);
            log.audit();
        }
        Log again(disk);
        REQUIRE(again.open() == Errc::ok);
        CHECK(support::snapshot_of(again) == (ends ? "state of 6" : ""));
        CHECK(again.base() == (ends ? Zxid{1, 6} : Zxid{}));
        CHECK(again.size() == (ends ? 4 : 10));
        CHECK(again.last().zxid == Zxid{1, 10});
        again.audit();
    }
}

TEST_CASE("L8 many entries are forgotten some at a time") {
    MemoryStorage disk;
    Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    for (std::uint64_t i = 1; i <= 2500; i++) append(log, Zxid{1, i});
    settle(log);
    log.forget_through(Zxid{1, 2400});
    CHECK(log.size() == 1500);
    log.forget_through(Zxid{1, 10});  // less than before
    REQUIRE(log.refresh_durable() == Errc::ok);
    CHECK(log.size() == 100);
    CHECK(log.base() == Zxid{1, 2400});
    log.audit();
}

TEST_CASE("a snapshot with more entries kept than there are keeps all") {
    MemoryStorage disk;
    Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    for (std::uint64_t i = 1; i <= 4; i++) append(log, Zxid{1, i});
    settle(log);
    REQUIRE(support::take_snapshot(log, position_of(log, Zxid{1, 3}), "s", 1000) == Errc::ok);
    CHECK(log.base() == Zxid{});
    CHECK(log.size() == 4);
    settle(log);
    Log again(disk);
    REQUIRE(again.open() == Errc::ok);
    CHECK(again.size() == 4);
    CHECK(again.snapshot_position().zxid == Zxid{1, 3});
}

TEST_CASE("L4 an installed snapshot replaces the history in one record") {
    MemoryStorage disk;
    Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    REQUIRE(log.accept_epoch(2, PeerId{3}) == Errc::ok);
    for (std::uint64_t i = 1; i <= 4; i++) append(log, Zxid{1, i});
    settle(log);
    const Sequence before = disk.appended();
    REQUIRE(support::install_snapshot(log, LogPosition{Zxid{2, 50}, 1234}, "theirs") == Errc::ok);
    CHECK(disk.appended() == before + 1);
    CHECK(log.size() == 0);
    CHECK(log.base() == Zxid{2, 50});
    CHECK(log.last().zxid == Zxid{2, 50});
    CHECK(log.last().crc == 1234);
    CHECK(log.durable_last() == Zxid{});  // L2: neither the old nor the new counts
    append(log, Zxid{2, 51});
    settle(log);
    CHECK(log.durable_last() == Zxid{2, 51});
    Log again(disk);
    REQUIRE(again.open() == Errc::ok);
    CHECK(support::snapshot_of(again) == "theirs");
    CHECK(again.epochs().accepted == 2);
    CHECK(again.epochs().accepted_from == PeerId{3});
    CHECK(again.last().zxid == Zxid{2, 51});
}

TEST_CASE("L4 an install in pieces changes nothing before its end, and everything then") {
    for (const bool ends : {false, true}) {
        CAPTURE(ends);
        MemoryStorage disk;
        Log log(disk);
        REQUIRE(log.open() == Errc::ok);
        REQUIRE(log.accept_epoch(2, PeerId{3}) == Errc::ok);
        for (std::uint64_t i = 1; i <= 4; i++) append(log, Zxid{1, i});
        settle(log);
        REQUIRE(log.begin_snapshot(position_of(log, Zxid{1, 2})) == Errc::ok);
        REQUIRE(log.write_snapshot("own") == Errc::ok);
        REQUIRE(log.begin_install(LogPosition{Zxid{2, 50}, 1234}) == Errc::ok);  // instead
        for (const char* piece : {"th", "eir", "s"}) REQUIRE(log.write_snapshot(piece) == Errc::ok);
        settle(log);
        CHECK(log.last().zxid == Zxid{1, 4});
        CHECK(log.durable_last() == Zxid{1, 4});
        CHECK(log.snapshot_bytes() == 0);
        if (ends) {
            REQUIRE(log.end_install() == Errc::ok);
            CHECK(log.last().zxid == Zxid{2, 50});
            CHECK(log.durable_last() == Zxid{});  // L2
            CHECK(support::snapshot_of(log) == "theirs");
            settle(log);
        }
        log.audit();
        Log again(disk);
        REQUIRE(again.open() == Errc::ok);
        CHECK(support::snapshot_of(again) == (ends ? "theirs" : ""));
        CHECK(again.last().zxid == (ends ? Zxid{2, 50} : Zxid{1, 4}));
        CHECK(again.epochs().accepted == 2);
    }
}

TEST_CASE("an installed snapshot may be older than what was there") {
    MemoryStorage disk;
    Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    for (std::uint64_t i = 1; i <= 9; i++) append(log, Zxid{1, i});
    settle(log);
    REQUIRE(support::install_snapshot(log, LogPosition{Zxid{1, 4}, 99}, "back") == Errc::ok);
    append(log, Zxid{2, 1});
    settle(log);
    Log again(disk);
    REQUIRE(again.open() == Errc::ok);
    CHECK(again.last().zxid == Zxid{2, 1});
    CHECK(again.base() == Zxid{1, 4});
}

TEST_CASE("L2 the watermark: a flush counts when the storage says so") {
    MemoryStorage disk;
    Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    disk.hold_flushes();
    append(log, Zxid{1, 1});
    CHECK(log.is_dirty());
    CHECK_FALSE(log.is_waiting());
    settle(log);
    CHECK_FALSE(log.is_dirty());
    CHECK(log.is_waiting());
    CHECK(log.durable_last() == Zxid{});
    append(log, Zxid{1, 2});
    settle(log);
    append(log, Zxid{1, 3});
    disk.release(1);
    settle(log);
    CHECK(log.durable_last() == Zxid{1, 1});
    disk.release(2);
    REQUIRE(log.refresh_durable() == Errc::ok);
    CHECK(log.durable_last() == Zxid{1, 2});
    disk.release();
    REQUIRE(log.refresh_durable() == Errc::ok);
    CHECK(log.durable_last() == Zxid{1, 3});
    CHECK_FALSE(log.is_waiting());
}

TEST_CASE("L2 a flush that began before a cut does not make what was cut durable again") {
    MemoryStorage disk;
    Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    disk.hold_flushes();
    for (std::uint64_t i = 1; i <= 5; i++) append(log, Zxid{1, i});
    settle(log);
    REQUIRE(log.truncate(Zxid{1, 2}) == Errc::ok);
    append(log, Zxid{2, 1});
    disk.release();
    REQUIRE(log.refresh_durable() == Errc::ok);
    CHECK(log.durable_last() == Zxid{1, 2});
    settle(log);
    disk.release();
    REQUIRE(log.refresh_durable() == Errc::ok);
    CHECK(log.durable_last() == Zxid{2, 1});
}

TEST_CASE("L2 a flush that began before an install makes nothing of the old history durable") {
    MemoryStorage disk;
    Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    disk.hold_flushes();
    for (std::uint64_t i = 1; i <= 5; i++) append(log, Zxid{1, i});
    settle(log);
    REQUIRE(support::install_snapshot(log, LogPosition{Zxid{1, 3}, 5}, "s") == Errc::ok);
    disk.release();
    REQUIRE(log.refresh_durable() == Errc::ok);
    CHECK(log.durable_last() == Zxid{});
    settle(log);
    CHECK(log.durable_last() == Zxid{});
    disk.release();
    REQUIRE(log.refresh_durable() == Errc::ok);
    CHECK(log.durable_last() == Zxid{1, 3});
}

TEST_CASE("a storage that fails is reported by every change and by the watermark") {
    MemoryStorage disk;
    Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    append(log, Zxid{1, 1});
    append(log, Zxid{1, 2});
    REQUIRE(log.accept_epoch(1, PeerId{1}) == Errc::ok);
    settle(log);
    disk.fail();
    CHECK(log.refresh_durable() == Errc::storage_failed);
    Txn txn;
    const Bytes record = entry_after(log.last(), Zxid{1, 3}, "x", txn);
    CHECK(log.append(record, txn) == Errc::storage_failed);
    CHECK(log.accept_epoch(2, PeerId{1}) == Errc::storage_failed);
    CHECK(log.set_current_epoch(1) == Errc::storage_failed);
    CHECK(log.truncate(Zxid{1, 1}) == Errc::storage_failed);
    CHECK(support::take_snapshot(log, position_of(log, Zxid{1, 1}), "s", 0) ==
          Errc::storage_failed);
    CHECK(support::install_snapshot(log, LogPosition{Zxid{1, 9}, 1}, "s") == Errc::storage_failed);
    CHECK(log.flush() == Errc::storage_failed);
    CHECK(log.durable_last() == Zxid{1, 2});  // nothing has changed
    CHECK(log.last().zxid == Zxid{1, 2});
    CHECK(log.epochs().accepted == 1);
    CHECK(log.epochs().current == 0);
    Log again(disk);
    CHECK(again.open() == Errc::storage_failed);
    CHECK(std::string(again.reason()) == "the storage did not open");
}

// Red when the format of the log changes: old logs cannot be read any more then.
TEST_CASE("golden: the bytes of each kind of record") {
    Tape tape;
    Log log(tape);
    REQUIRE(log.open() == Errc::ok);
    REQUIRE(log.accept_epoch(0x01020304, PeerId{0x0a0b0c0d}) == Errc::ok);
    REQUIRE(log.set_current_epoch(0x01020303) == Errc::ok);
    append(log, Zxid{1, 2}, "xy");
    append(log, Zxid{1, 3}, "");
    REQUIRE(log.truncate(Zxid{1, 2}) == Errc::ok);
    settle(log);
    REQUIRE(support::take_snapshot(log, position_of(log, Zxid{1, 2}), "state", 0) == Errc::ok);
    REQUIRE(support::install_snapshot(log, LogPosition{Zxid{2, 9}, 0x11223344}, "st") == Errc::ok);
    REQUIRE(tape.items.size() == 7);
    const auto item = [&](std::size_t i) { return support::hex(tape.items[i].second); };
    CHECK(item(0) == "00000011" "18636531" "03" "01020304" "0a0b0c0d");
    CHECK(item(1) == "0000000d" "10aa6b5d" "04" "01020303");
    CHECK(item(2) == "00000040" "70c67023" "01" "0000010000000002" "0000000000000000" "00000000"
                     "00000000000003e8" "0000000000000005" "0000000000000006"
                     "0000000000000004" "05" "7879");
    CHECK(item(4) == "00000011" "587fa92c" "02" "0000010000000002");
    CHECK(item(5) == "00000022" "8d59d9c2" "05" "0000010000000002" "70c67023" "01020304" "0a0b0c0d"
                     "01020303" "00" "7374617465");
    CHECK(item(6) == "00000022" "cb8b5018" "05" "0000020000000009" "11223344" "01020304"
                     "0a0b0c0d" "01020303" "01" "7374");
    CHECK(coord::entry_header_bytes == 62);
}

TEST_CASE("an entry: flipped bits, every length but its own and senseless zxids are corrupt") {
    Txn txn;
    Bytes record = entry_after(LogPosition{Zxid{1, 1}, 7}, Zxid{1, 2}, "some body", txn);
    Txn read;
    REQUIRE(coord::decode_entry(record, read) == Errc::ok);
    for (std::size_t i = 0; i < record.size(); i++) {
        CHECK(coord::decode_entry(BytesView(record).substr(0, i), read) == Errc::corrupt);
        for (int bit = 0; bit < 8; bit++) {
            record[i] = static_cast<char>(record[i] ^ (1 << bit));
            CHECK(coord::decode_entry(record, read) == Errc::corrupt);
            record[i] = static_cast<char>(record[i] ^ (1 << bit));
        }
    }
    CHECK(coord::decode_entry(record + "x", read) == Errc::corrupt);
    const auto with_zxids = [](std::uint64_t zxid, std::uint64_t previous, char op = 3) {
        return framed(1, u64_bytes(zxid) + u64_bytes(previous) + Bytes(36, '\0') + Bytes(1, op));
    };
    for (int op = 0; op < 256; op++) {  // L6: parts of a multi are no transactions, nor is what
        const bool is_known = op >= 1 && op <= 14 && op != 8;  // a newer version may have
        CHECK(coord::decode_entry(with_zxids(2, 1, static_cast<char>(op)), read) ==
              (is_known ? Errc::ok : Errc::other_version));
    }
    CHECK(coord::decode_entry(with_zxids(2, 1), read) == Errc::ok);
    CHECK(coord::decode_entry(with_zxids(2, 2), read) == Errc::corrupt);
    CHECK(coord::decode_entry(with_zxids(2, 3), read) == Errc::corrupt);
    CHECK(coord::decode_entry(with_zxids(Zxid{2, 0}.value, 1), read) == Errc::corrupt);
    CHECK(coord::decode_entry(framed(2, u64_bytes(1)), read) == Errc::corrupt);
    CHECK(coord::decode_entry(framed(1, Bytes(52, '\1')), read) == Errc::corrupt);
}

TEST_CASE("an entry: fields at their extremes survive") {
    for (const std::uint64_t extreme : {std::uint64_t{0}, UINT64_MAX}) {
        Txn txn, read;
        txn.zxid = Zxid{UINT64_MAX}, txn.previous = Zxid{extreme == 0 ? 0 : UINT64_MAX - 1};
        txn.previous_crc = static_cast<std::uint32_t>(extreme);
        txn.time_ms = extreme == 0 ? INT64_MIN : INT64_MAX;
        txn.session = coord::SessionId{extreme}, txn.cxid = txn.confirmed = extreme;
        txn.op = extreme == 0 ? coord::OpCode::open_session : coord::OpCode::reconfig;
        const Bytes body(extreme == 0 ? 0 : 100000, '\xee');
        txn.body = body;
        Bytes record;
        const std::uint32_t crc = coord::encode_entry(txn, record);
        REQUIRE(coord::decode_entry(record, read) == Errc::ok);
        CHECK(coord::Reader(BytesView(record).substr(4)).u32() == crc);
        CHECK(read.zxid == txn.zxid);
        CHECK(read.previous == txn.previous);
        CHECK(read.previous_crc == txn.previous_crc);
        CHECK(read.time_ms == txn.time_ms);
        CHECK(read.session == txn.session);
        CHECK(read.cxid == txn.cxid);
        CHECK(read.confirmed == txn.confirmed);
        CHECK(read.op == txn.op);
        CHECK(read.body == txn.body);
    }
}

TEST_CASE("recovery: a sound log opens") { CHECK(reason_of(five_entries()).empty()); }

TEST_CASE("recovery: every way in which a log can be damaged has its reason") {
    Tape tape = five_entries();
    std::string expected;
    Tape source;
    Log log(source);
    REQUIRE(log.open() == Errc::ok);
    SUBCASE("the storage does not open") {
        tape.open_error = Errc::corrupt;
        expected = "the storage did not open";
    }
    SUBCASE("a missing entry") {
        tape.items.erase(tape.items.begin() + 4);
        expected = "an entry is missing in the log";
    }
    SUBCASE("two entries swapped") {
        std::swap(tape.items[4], tape.items[5]);
        expected = "an entry is missing in the log";
    }
    SUBCASE("an entry twice") {
        tape.items.insert(tape.items.begin() + 4, tape.items[4]);
        expected = "an entry is missing in the log";
    }
    SUBCASE("an entry of another history, of the same zxid") {
        Txn txn;
        tape.items[3].second = entry_after(LogPosition{Zxid{1, 1}, 99}, Zxid{1, 2}, "", txn);
        expected = "an entry is missing in the log";
    }
    SUBCASE("the first entries are gone and there is no snapshot") {
        tape.items.erase(tape.items.begin(), tape.items.begin() + 3);
        expected = "the log starts in the middle and there is no snapshot";
    }
    SUBCASE("a flipped bit") {
        tape.items[5].second[20] = static_cast<char>(tape.items[5].second[20] ^ 4);
        expected = "a record in the log is damaged";
    }
    SUBCASE("a record cut short") {
        tape.items[5].second.pop_back();
        expected = "a record in the log is damaged";
    }
    SUBCASE("a record with more after it") {
        tape.items[5].second += 'x';
        expected = "a record in the log is damaged";
    }
    SUBCASE("an empty record") {
        tape.items[5].second.clear();
        expected = "a record in the log is damaged";
    }
    SUBCASE("a length below the header's") {
        Writer(tape.items[5].second).patch_u32(0, 8);
        expected = "a record in the log is damaged";
    }
    SUBCASE("a kind that there is not") {
        tape.items[5].second = framed(99, "");
        expected = "a record in the log is of a kind that a newer version of coord has written";
    }
    SUBCASE("an operation that there is not") {
        Bytes record = tape.items[5].second;
        record[61] = 15;
        tape.items[5].second = framed(1, record.substr(9));
        expected = "a record in the log is of a kind that a newer version of coord has written";
    }
    SUBCASE("a snapshot's head among the records") {
        tape.items[5].second = framed(5, Bytes(25, '\0'));
        expected = "a record in the log is where none of its kind is";
    }
    SUBCASE("an entry whose frame is right and whose inside is not") {
        tape.items[5].second = framed(1, "too short");
        expected = "an entry in the log is damaged";
    }
    SUBCASE("a cut to where there is nothing") {
        tape.items.emplace_back(false, framed(2, u64_bytes(Zxid{1, 77}.value)));
        expected = "the log was cut where it has nothing";
    }
    SUBCASE("an epoch record of the wrong size") {
        tape.items.emplace_back(false, framed(4, u32_bytes(1) + "x"));
        expected = "an epoch record is wrong";
    }
    SUBCASE("a promise with a lease that is none") {
        const Bytes promise = u32_bytes(1) + u32_bytes(1);
        tape.items.emplace_back(false, framed(3, promise + u32_bytes(0)));
        expected = "an epoch record is wrong";
    }
    SUBCASE("a snapshot that knows of a lease that is none") {
        tape.items.emplace_back(true, framed(5, Bytes(29, '\0')));
        expected = "the snapshot is damaged";
    }
    SUBCASE("a current epoch above the accepted one") {
        tape.items.emplace_back(false, framed(4, u32_bytes(2)));
        expected = "an epoch record is wrong";
    }
    SUBCASE("a snapshot that is no snapshot") {
        tape.items.emplace_back(true, "what is this");
        expected = "the snapshot is damaged";
    }
    SUBCASE("a snapshot with a record of another kind at its head") {
        tape.items.emplace_back(true, framed(4, u32_bytes(1)));
        expected = "the snapshot is damaged";
    }
    SUBCASE("a snapshot whose head has the wrong size") {
        tape.items.emplace_back(true, framed(5, Bytes(24, '\0')));
        expected = "the snapshot is damaged";
    }
    SUBCASE("a snapshot of a point that the log does not have") {
        append(log, Zxid{3, 3});
        settle(log);
        REQUIRE(support::take_snapshot(log, log.last(), "s", 9) == Errc::ok);
        tape.items.push_back(source.items.back());
        expected = "the snapshot is not of this log";
    }
    SUBCASE("a snapshot of the same zxid in another history") {
        append(log, Zxid{1, 5}, "different");
        settle(log);
        REQUIRE(support::take_snapshot(log, log.last(), "s", 9) == Errc::ok);
        tape.items.push_back(source.items.back());
        expected = "the snapshot is not of this log";
    }
    SUBCASE("a cut behind the snapshot") {
        tape.items.emplace_back(true, framed(5, u64_bytes(Zxid{1, 5}.value) +
                                u32_bytes(coord::Reader(BytesView(tape.items[6].second)
                                                            .substr(4)).u32()) +
                                u32_bytes(1) + u32_bytes(2) + u32_bytes(1) + Bytes(1, '\0')));
        tape.items.emplace_back(false, framed(2, u64_bytes(Zxid{1, 4}.value)));
        expected = "the snapshot is older than the log";
    }
    CHECK(reason_of(tape) == expected);
}

TEST_CASE("recovery: the first damage is the reason, whatever follows") {
    Tape tape = five_entries();
    tape.items.erase(tape.items.begin() + 4);
    tape.items.emplace_back(false, "junk");
    tape.items.emplace_back(true, "junk");
    CHECK(reason_of(tape) == "an entry is missing in the log");
}

TEST_CASE("recovery: every bit of every record flipped is noticed, but for a state's own bytes") {
    Tape good = five_entries();
    {
        Log log(good);
        Tape copy = good;
        Log writer(copy);
        REQUIRE(writer.open() == Errc::ok);
        settle(writer);
        REQUIRE(support::take_snapshot(writer, writer.last(), "", 3) == Errc::ok);
        append(writer, Zxid{1, 6});
        good.items = copy.items;
    }
    REQUIRE(reason_of(good).empty());
    for (std::size_t i = 0; i < good.items.size(); i++) {
        for (std::size_t at = 0; at < good.items[i].second.size(); at++) {
            Tape bad = good;
            bad.items[i].second[at] = static_cast<char>(bad.items[i].second[at] ^ 0x10);
            CAPTURE(i);
            CAPTURE(at);
            REQUIRE_FALSE(reason_of(bad).empty());
        }
    }
}

TEST_CASE("recovery: a promise whose record was discarded stands in the snapshot") {
    MemoryStorage disk;
    Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    REQUIRE(log.accept_epoch(1, PeerId{1}) == Errc::ok);
    REQUIRE(log.set_current_epoch(1) == Errc::ok);
    append(log, Zxid{1, 1});
    REQUIRE(log.accept_epoch(2, PeerId{2}) == Errc::ok);
    append(log, Zxid{1, 2});  // the new leader's initial history
    append(log, Zxid{1, 3});
    REQUIRE(log.set_current_epoch(2) == Errc::ok);
    append(log, Zxid{2, 1});
    settle(log);
    REQUIRE(support::take_snapshot(log, log.last(), "s", 2) == Errc::ok);  // from 1.3 on
    settle(log);
    Log again(disk);
    CHECK(again.open() == Errc::ok);
    CHECK(std::string(again.reason()).empty());
    CHECK(again.epochs().accepted == 2);
    CHECK(again.epochs().current == 2);
}

TEST_CASE("L5 what is promised while a snapshot is being written survives it") {
    for (int kept = 0; kept <= 3; kept++) {
        CAPTURE(kept);
        MemoryStorage disk;
        Log log(disk);
        REQUIRE(log.open() == Errc::ok);
        REQUIRE(log.accept_epoch(1, PeerId{1}) == Errc::ok);
        REQUIRE(log.set_current_epoch(1) == Errc::ok);
        append(log, Zxid{1, 1}), append(log, Zxid{1, 2});
        settle(log);
        REQUIRE(log.begin_snapshot(position_of(log, Zxid{1, 2})) == Errc::ok);
        REQUIRE(log.write_snapshot("sta") == Errc::ok);
        append(log, Zxid{1, 3});
        REQUIRE(log.accept_epoch(2, PeerId{3}) == Errc::ok);
        REQUIRE(log.truncate(Zxid{1, 2}) == Errc::ok);  // 1.3 was not committed
        REQUIRE(log.set_current_epoch(2) == Errc::ok);
        if (kept > 1) append(log, Zxid{2, 1});
        settle(log);
        Bytes begun;
        REQUIRE(log.read_begun(1, 100, begun) == Errc::ok);
        CHECK(begun == "ta");
        REQUIRE(log.write_snapshot("te") == Errc::ok);
        REQUIRE(log.end_snapshot(static_cast<std::size_t>(kept)) == Errc::ok);
        CHECK(log.snapshot_position().zxid == Zxid{1, 2});
        settle(log);
        Log again(disk);
        REQUIRE(again.open() == Errc::ok);
        again.audit();
        CHECK(support::snapshot_of(again) == "state");
        CHECK(again.snapshot_position().crc == log.snapshot_position().crc);
        CHECK(again.epochs().accepted == 2);
        CHECK(again.epochs().accepted_from == PeerId{3});
        CHECK(again.epochs().current == 2);
        CHECK(again.last().zxid == log.last().zxid);
        CHECK(again.last().crc == log.last().crc);
    }
}

TEST_CASE("recovery: a snapshot that was not ended is not there, and nothing was forgotten") {
    MemoryStorage disk;
    Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    for (std::uint64_t i = 1; i <= 3; i++) append(log, Zxid{1, i});
    settle(log);
    REQUIRE(log.begin_snapshot(position_of(log, Zxid{1, 2})) == Errc::ok);
    REQUIRE(log.write_snapshot("half of it") == Errc::ok);
    settle(log);
    Log again(disk);
    REQUIRE(again.open() == Errc::ok);
    CHECK(again.snapshot_bytes() == 0);
    CHECK(entries_of(again).size() == 3);
}

TEST_CASE("an entry that the log encodes is the one that encode_entry makes") {
    MemoryStorage disk, other_disk;
    Log log(disk), other(other_disk);
    REQUIRE(log.open() == Errc::ok);
    REQUIRE(other.open() == Errc::ok);
    const Bytes bodies[] = {"", "x", Bytes(190, 'y'), Bytes(70000, 'z'), "after"};
    for (std::uint64_t i = 1; i <= 5; i++) {
        Txn txn;
        const Bytes record = entry_after(log.last(), Zxid{1, i}, bodies[i - 1], txn);
        REQUIRE(log.append(txn) == Errc::ok);
        REQUIRE(other.append(record, txn) == Errc::ok);
        CHECK(log.last().crc == other.last().crc);
        CHECK(entry_at(log, Zxid{1, i}) == BytesView(record));
    }
    settle(log), settle(other);
    Log again(disk);
    REQUIRE(again.open() == Errc::ok);
    CHECK(again.last().crc == other.last().crc);
    CHECK(entries_of(again).size() == 5);
}

TEST_CASE("a storage without room refuses, and the log is as it was") {
    struct Full final : Tape {
        bool full = false;
        Errc append(BytesView record) override {
            return full ? Errc::storage_full : Tape::append(record);
        }
        Errc end_snapshot(Sequence first_needed, bool replaces) override {
            return full ? Errc::storage_full : Tape::end_snapshot(first_needed, replaces);
        }
    } tape;
    Log log(tape);
    REQUIRE(log.open() == Errc::ok);
    append(log, Zxid{1, 1}), append(log, Zxid{1, 2});
    REQUIRE(log.accept_epoch(2, PeerId{3}) == Errc::ok);
    settle(log);
    tape.full = true;
    Txn txn;
    const Bytes record = entry_after(log.last(), Zxid{1, 3}, "x", txn);
    CHECK(log.append(record, txn) == Errc::storage_full);
    CHECK(log.append(txn) == Errc::storage_full);
    Txn large;  // in a block of its own, if it were taken
    const Bytes body(70000, 'x');
    entry_after(log.last(), Zxid{1, 3}, body, large);
    CHECK(log.append(large) == Errc::storage_full);
    CHECK(log.truncate(Zxid{1, 1}) == Errc::storage_full);
    CHECK(log.last().zxid == Zxid{1, 2});
    CHECK(log.accept_epoch(3, PeerId{1}) == Errc::storage_full);
    CHECK(log.epochs().accepted == 2);
    CHECK(log.epochs().accepted_from == PeerId{3});
    CHECK(log.set_current_epoch(2) == Errc::storage_full);
    CHECK(log.epochs().current == 0);
    settle(log);
    CHECK(log.durable_last() == Zxid{1, 2});
    CHECK(log.durable_epochs().accepted == 2);
    CHECK(log.durable_epochs().current == 0);
    CHECK(support::take_snapshot(log, log.last(), "s", 0) == Errc::storage_full);
    CHECK(log.snapshot_bytes() == 0);
    CHECK(entries_of(log).size() == 2);
    log.audit();
    tape.full = false;
    REQUIRE(log.append(txn) == Errc::ok);
    CHECK(log.entry_after(Zxid{1, 2}) == BytesView(record));
    Zxid last_sent;  // the room of what was refused is taken again: still one run of bytes
    CHECK(log.entries_after(Zxid{1, 1}, 1000, last_sent).size() > record.size());
    CHECK(last_sent == Zxid{1, 3});
    REQUIRE(support::take_snapshot(log, position_of(log, Zxid{1, 2}), "s", 0) == Errc::ok);
    CHECK(entries_of(log).size() == 1);
}

TEST_CASE("recovery: crashes before the storage was told what to forget") {
    MemoryStorage disk;
    {
        Log log(disk);
        REQUIRE(log.open() == Errc::ok);
        for (std::uint64_t i = 1; i <= 3; i++) append(log, Zxid{1, i});
        settle(log);
        const LogPosition other{Zxid{2, 5}, 8};
        REQUIRE(support::install_snapshot(log, other, "installed") == Errc::ok);
        REQUIRE(log.flush() == Errc::ok);  // durable, and the process dies here
    }
    {
        Log log(disk);
        REQUIRE(log.open() == Errc::ok);
        append(log, Zxid{2, 6});
        settle(log);
        REQUIRE(support::take_snapshot(log, log.last(), "newer", 5) == Errc::ok);
        REQUIRE(log.flush() == Errc::ok);  // and here again
    }
    Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    CHECK(support::snapshot_of(log) == "newer");
    CHECK(log.last().zxid == Zxid{2, 6});
}

TEST_CASE("a crash after every step of a life, with every number of survivors") {
    const std::size_t steps = 3 * 29;
    for (std::size_t stop = 0; stop <= steps; stop++) {
        for (std::size_t survivors = 0;; survivors++) {
            Driver d;
            for (std::size_t step = 0; step < stop; step++) run_step(d, step);
            const std::size_t unsafe = static_cast<std::size_t>(d.disk.appended() -
                                                                d.disk.durable());
            CAPTURE(stop);
            CAPTURE(survivors);
            d.compare();
            d.crash(survivors);
            for (std::size_t step = 0; step < 29; step++) run_step(d, step);
            d.crash(1);
            if (survivors >= unsafe) break;
        }
    }
}

TEST_CASE("the same with flushes held back, and released a piece at a time") {
    const std::size_t steps = 2 * 29;
    for (std::size_t stop = 1; stop <= steps; stop++) {
        for (const std::size_t late : {1u, 2u, 5u, 100u}) {
            Driver d;
            d.disk.hold_flushes();
            for (std::size_t step = 0; step < stop; step++) {
                run_step(d, step);
                if (d.disk.flushed() > late) d.disk.release(d.disk.flushed() - late);
                d.refresh();
            }
            CAPTURE(stop);
            CAPTURE(late);
            d.compare();
            d.crash(stop % 3);
            run_step(d, 1), d.flush(), d.refresh();
        }
    }
}

TEST_CASE("random lives with crashes: the log is what the model says") {
    for (std::uint64_t seed = 1; seed <= 40; seed++) {
        CAPTURE(seed);
        coord::Rng rng(seed);
        Driver d;
        for (int step = 0; step < 250; step++) {
            switch (rng.below(14)) {
                case 0: case 1: case 2: case 3: d.add(rng.below(300)); break;
                case 4: d.add(rng.below(40000)); break;
                case 5: d.promise(); break;
                case 6: d.current(); break;
                case 7: d.cut(rng.below(5)); break;
                case 8: d.snapshot(rng.below(4), rng.below(6)); break;
                case 9: if (rng.chance(200)) d.install(); break;
                case 10: case 11: d.flush(); break;
                case 12: rng.chance(500) ? d.disk.hold_flushes() : d.disk.stop_holding(); break;
                default: d.disk.release(d.disk.durable() + rng.below(5));
            }
            d.refresh();
            if (rng.chance(20)) d.crash(rng.below(6));
        }
        d.crash(100);
    }
}

TEST_CASE("memory stays bounded over 100,000 entries, with a snapshot now and then") {
    MemoryStorage disk;
    Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    std::set<const char*> places;
    std::size_t disk_bytes_max = 0;
    const Bytes body(200, 'x');
    for (std::uint64_t i = 1; i <= 100000; i++) {
        append(log, Zxid{1, i}, body);
        if (log.size() == 1 || i % 200 == 0) places.insert(entry_at(log, Zxid{1, i}).data());
        if (i % 100 == 0) settle(log);
        if (i % 1000 == 0) {
            REQUIRE(support::take_snapshot(log, log.last(), "state", 500) == Errc::ok);
            settle(log);
            disk_bytes_max = (std::max)(disk_bytes_max, disk.bytes());
            CHECK(log.size() == 500);
        }
    }
    CHECK(disk_bytes_max < 2000 * 300);
    // 26 MB went through blocks of 64 KiB: had they not been used again, there were 400 of them.
    std::set<std::uintptr_t> blocks;
    for (const char* const place : places) {
        blocks.insert(reinterpret_cast<std::uintptr_t>(place) / 65536);
    }
    CHECK(blocks.size() < 60);
    Log again(disk);
    REQUIRE(again.open() == Errc::ok);
    CHECK(again.last().crc == log.last().crc);
}

TEST_CASE("admits are known wherever they are, and what is applied adds to the table") {
    MemoryStorage disk;
    Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    const auto admit = [&](Zxid zxid, std::uint64_t storage) {
        Txn txn;
        Bytes body, record;
        coord::VoterTable::write({{coord::PeerId{4}, storage}}, body);
        txn.zxid = zxid, txn.previous = log.last().zxid, txn.previous_crc = log.last().crc;
        txn.op = coord::OpCode::admit, txn.body = body;
        coord::encode_entry(txn, record);
        REQUIRE(log.append(record, txn) == Errc::ok);
    };
    const auto at_end = [](const Log& of, const coord::Machine& applied) {
        return of.voters_at_end(applied).storage_of(coord::PeerId{4});
    };
    const coord::Machine nothing(coord::Limits{}, 1);
    append(log, Zxid{1, 1});
    admit(Zxid{1, 2}, 7);
    append(log, Zxid{1, 3});
    admit(Zxid{1, 4}, 8);
    append(log, Zxid{1, 5});
    CHECK(log.admits() == std::vector<Zxid>{Zxid{1, 2}, Zxid{1, 4}});
    CHECK(at_end(log, nothing) == 8);
    REQUIRE(log.truncate(Zxid{1, 3}) == Errc::ok);
    CHECK(log.admits() == std::vector<Zxid>{Zxid{1, 2}});
    CHECK(at_end(log, nothing) == 7);
    admit(Zxid{2, 1}, 9);
    settle(log);
    log.audit();
    Log again(disk);
    REQUIRE(again.open() == Errc::ok);
    CHECK(again.admits() == std::vector<Zxid>{Zxid{1, 2}, Zxid{2, 1}});
    CHECK(at_end(again, nothing) == 9);
    REQUIRE(support::take_snapshot(log, position_of(log, Zxid{1, 3}), "state", 0) == Errc::ok);
    settle(log);
    CHECK(log.admits() == std::vector<Zxid>{Zxid{2, 1}});
    REQUIRE(log.start_over(5) == Errc::ok);
    CHECK(log.admits().empty());
    CHECK(log.last().zxid == Zxid{});
    CHECK(log.epochs().accepted == 0);
    CHECK_FALSE(log.may_found());
    CHECK(log.storage_id() == disk.id());
    append(log, Zxid{3, 1});
    settle(log);
    log.audit();
}

}  // TEST_SUITE
