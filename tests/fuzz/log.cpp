// Fuzz target: arbitrary records and snapshots in a sound storage. Log::open takes them for a
// history or says corrupt; what it takes holds all that audit knows, and goes on: entries, epochs,
// a cut, a snapshot, and is opened again to the same. How to run it: fuzz.hpp.
//
// ctest: --runs=200000
//
// Input: items of u8 kind, u8 size and so many bytes; kind's low bits: 0 = a record as it is, 1 =
// one whose length and checksum are put right, 2 = an entry that is made to follow the one before,
// 3 = a snapshot of those bytes, length and checksum put right; bit 7: no checksum is put right.
#include "fuzz.hpp"

#include <memory>

namespace {

using fuzz::Bytes;
using fuzz::BytesView;
using fuzz::Errc;
using fuzz::Writer;

constexpr std::size_t record_header_bytes = 9;  // FORMAT: u32 length, u32 checksum, u8 kind

void put_checksum(Bytes& record) {
    if (record.size() < record_header_bytes) return;
    fuzz::put_u32(record, 0, static_cast<std::uint32_t>(record.size()));
    fuzz::put_u32(record, 4, coord::crc32c(BytesView(record).substr(8)));
}

struct Position {
    std::uint64_t zxid = 0;
    std::uint32_t crc = 0;
};

// FORMAT: an entry's zxid is at 9, the one before it at 17, and that one's checksum at 25.
void make_follow(Bytes& record, Position& last) {
    record.resize((std::max)(record.size(), coord::entry_header_bytes), '\0');
    record[8] = 1;
    fuzz::put_u64(record, 17, last.zxid);
    fuzz::put_u32(record, 25, last.crc);
    put_checksum(record);
    last = {fuzz::u64_at(record, 9), fuzz::u32_at(record, 4)};
}

void write_snapshot(coord::Storage& storage, BytesView bytes, coord::Sequence needed) {
    Errc error = storage.begin_snapshot();
    if (error == Errc::ok) error = storage.write_snapshot(bytes);
    if (error == Errc::ok) error = storage.end_snapshot(needed, false);
    fuzz::expect(error == Errc::ok, "memory takes a snapshot");
}

void fill(coord::Storage& storage, BytesView input) {
    Position last;
    coord::Reader in(input);
    while (in.left() > 0) {
        const std::uint8_t kind = in.u8();
        const std::size_t size = in.u8();
        Bytes bytes(in.raw((std::min)(size, in.left())));
        if ((kind & 3) == 2) make_follow(bytes, last);
        if ((kind & 3) == 3) {
            constexpr std::size_t base_bytes = record_header_bytes + 25;  // FORMAT
            Bytes base = bytes.substr(0, base_bytes);
            if ((kind & 128) == 0) put_checksum(base);
            bytes = base + bytes.substr(base.size());
            if (base.size() == base_bytes && base[base_bytes - 1] == 1) {
                last = {fuzz::u64_at(base, 9), fuzz::u32_at(base, 17)};  // it replaces
            }
            write_snapshot(storage, bytes, storage.appended() * (kind >> 6 & 1) + 1);
            continue;
        }
        if ((kind & 3) == 1 && (kind & 128) == 0) put_checksum(bytes);
        fuzz::expect(storage.append(bytes) == Errc::ok, "memory takes a record");
    }
    fuzz::expect(storage.flush() == Errc::ok, "memory is durable");
}

void append(coord::Log& log, std::uint64_t zxid) {
    coord::Txn txn;
    txn.zxid = coord::Zxid{zxid};
    txn.previous = log.last().zxid, txn.previous_crc = log.last().crc;
    txn.op = coord::OpCode::set, txn.body = "a body";
    Bytes record;
    coord::encode_entry(txn, record);
    fuzz::expect(log.append(record, txn) == Errc::ok, "a log goes on");
}

void make_durable(coord::Log& log) {
    fuzz::expect(log.flush() == Errc::ok && log.refresh_durable() == Errc::ok, "it is durable");
    fuzz::expect(log.durable_last() == log.last().zxid, "all of it");
    log.audit();
}

bool are_equal(const coord::Log& a, const coord::Log& b) {
    const bool ends = a.last().zxid == b.last().zxid && a.last().crc == b.last().crc;
    const bool epochs = a.epochs().accepted == b.epochs().accepted &&
                        a.epochs().accepted_from == b.epochs().accepted_from &&
                        a.epochs().current == b.epochs().current &&
                        a.epochs().lease == b.epochs().lease;
    return ends && epochs && a.snapshot_position().zxid == b.snapshot_position().zxid &&
           a.snapshot_bytes() == b.snapshot_bytes();
}

// A new life on the same storage; log is the new one's.
void live_again(std::unique_ptr<coord::Log>& log, coord::MemoryStorage& storage) {
    auto again = std::make_unique<coord::Log>(storage);
    fuzz::expect(again->open() == Errc::ok, "what was open opens again");
    again->audit();
    fuzz::expect(are_equal(*log, *again), "to the same");
    log = std::move(again);
}

void take_snapshot(coord::Log& log) {
    Errc error = log.begin_snapshot(log.last());
    if (error == Errc::ok) error = log.write_snapshot("a state");
    if (error == Errc::ok) error = log.end_snapshot(1);
    fuzz::expect(error == Errc::ok, "a snapshot");
}

void go_on(std::unique_ptr<coord::Log>& log, coord::MemoryStorage& storage) {
    if (log->last().zxid.counter() > coord::Zxid::counter_max - 20) return;
    const std::uint64_t next = log->last().zxid.value + 1;
    append(*log, next), append(*log, next + 1);
    log->set_time(coord::Time{});
    log->set_time(coord::Time{} + coord::seconds(4300));  // no lease is longer
    if (log->epochs().accepted < UINT32_MAX) {
        const std::uint32_t epoch = log->epochs().accepted + 1;
        fuzz::expect(log->accept_epoch(epoch, coord::PeerId{3}) == Errc::ok, "an epoch");
        fuzz::expect(log->set_current_epoch(epoch) == Errc::ok, "and it is current");
    }
    make_durable(*log);
    live_again(log, storage);
    fuzz::expect(log->truncate(coord::Zxid{next}) == Errc::ok, "a cut");
    append(*log, next + 2);
    make_durable(*log);
    live_again(log, storage);
    take_snapshot(*log);
    make_durable(*log);
    live_again(log, storage);
    append(*log, next + 3);
    fuzz::expect(log->begin_install({coord::Zxid{next + 9}, 1}) == Errc::ok, "another");
    fuzz::expect(log->write_snapshot("other") == Errc::ok, "another, written");
    fuzz::expect(log->end_install() == Errc::ok, "another, ended");
    append(*log, next + 10);
    make_durable(*log);
    live_again(log, storage);
}

Bytes item(std::uint8_t kind, BytesView bytes) {
    Bytes out(1, static_cast<char>(kind));
    out.push_back(static_cast<char>(bytes.size()));
    return out += bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    coord::MemoryStorage storage;
    struct Nobody final : coord::RecoverySink {
        void on_record(coord::Sequence, BytesView) override {}
        void on_snapshot(coord::Sequence, BytesView, std::uint64_t) override {}
    } nobody;
    fuzz::expect(storage.open(nobody, {}) == Errc::ok, "memory opens");
    fill(storage, fuzz::view(data, size));
    auto log = std::make_unique<coord::Log>(storage);
    const Errc error = log->open();
    if (error != Errc::ok) {
        const bool is_known = error == Errc::corrupt || error == Errc::other_version;
        fuzz::expect(is_known && *log->reason() != 0, "a history, or why it is none");
        return 0;
    }
    log->audit();
    Bytes state;
    if (log->snapshot_position().zxid > coord::Zxid{}) {
        fuzz::expect(log->read_snapshot(0, 1000, state) == Errc::ok, "its snapshot is read");
        fuzz::expect(state.size() == log->snapshot_bytes(), "all of it");
    }
    live_again(log, storage);
    go_on(log, storage);
    return 0;
}

std::vector<Bytes> fuzz::seeds() {
    const auto entry = [](std::uint64_t zxid) {
        Bytes record(coord::entry_header_bytes, '\0');
        fuzz::put_u64(record, 9, zxid);
        return item(2, record + "body");
    };
    const auto fields = [](std::uint8_t how, char kind, std::initializer_list<std::uint32_t> words,
                           BytesView rest = {}) {
        Bytes record(8, '\0');
        record.push_back(kind);
        for (const std::uint32_t word : words) Writer(record).u32(word);
        return item(how, record + Bytes(rest));
    };
    const Bytes accepted = fields(1, 3, {1, 2}), current = fields(1, 4, {1});
    const std::uint64_t first = std::uint64_t{1} << 40 | 1;
    const Bytes three = entry(first) + entry(first + 1) + entry(first + 2);
    const Bytes installed = fields(3, 5, {256, 9, 77, 1, 2, 1}, BytesView("\1state", 6));
    const Bytes own = fields(3 + 64, 5, {256, 9, 77, 1, 2, 1}, BytesView("\0state", 6));
    Bytes raw = entry(first);
    raw[0] = 0;
    return {three, accepted + current + three, three + fields(1, 2, {256, 2}) + entry(first + 5),
            three + installed + accepted + current, own + current + fields(1, 3, {4, 1}),
            installed + three + fields(1, 2, {256, 9}), raw + three};
}
