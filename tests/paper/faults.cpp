// The catalogue of faults of disks, snapshots and processes: scenarios that other systems have met,
// each under the letter and number that it has there. Some are elsewhere, beside what they are
// about: grep for "faults D", "faults N", "faults S" and "faults T" finds those whose names say so;
// scenarios.txt has where the others are, and what is not covered.
//
//   N   a path that is slow, or loses what is large
//   D   a disk that tears, lies, fails, fills up, rots, is slow, is rolled back
//   S   a snapshot on its way into a disk, or from a leader to a learner
//   T   a process that crashes or stands still at a bad moment
//   N   a network that is cut one way, in part, or again and again

#include <doctest/doctest.h>

#include "../storage_contract.hpp"
#include "../support.hpp"
#include "harness.hpp"
#include "on_files.hpp"

#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#ifndef COORD_NO_THREADS
#include <chrono>
#include <thread>
#endif

namespace {

using coord::CreateMode;
using coord::Duration;
using coord::milliseconds;
using coord::Request;
using coord::seconds;
using coord::Simulation;
using coord::SimulationOptions;
using coord::Time;
using paper::anybody;
using paper::Bytes;
using paper::BytesView;
using paper::CallPtr;
using paper::Errc;
using paper::Message;
using paper::MessageType;
using paper::Packet;
using paper::PeerId;
using paper::Role;
using paper::SessionId;
using paper::World;
using paper::WorldOptions;
using paper::Zxid;

// With equal histories the highest id wins an election: A before B before C.
constexpr PeerId A{3}, B{2}, C{1};

bool in_step(World& w, const std::vector<PeerId>& group) {
    return w.run_until([&] { return w.are_equal(group); });
}

bool bring_up(World& w, const std::vector<PeerId>& group) {
    for (const PeerId id : group) {
        if (!w.is_up(id)) w.start(id);
    }
    return in_step(w, group);
}

// A leads all three; a session at A has written /a: everybody has 1.4.
SessionId three(World& w) {
    REQUIRE(bring_up(w, {A, B, C}));
    REQUIRE(w.leader() == A);
    const SessionId session = w.open(A);
    REQUIRE(w.write(A, session, "/a"));
    REQUIRE(in_step(w, {A, B, C}));
    return session;
}

void write_many(World& w, PeerId at, SessionId session, const std::string& prefix, int count,
                std::size_t size = 0) {
    for (int i = 0; i < count; i++) {
        REQUIRE(w.write(at, session, "/" + prefix + std::to_string(i), Bytes(size, 'v')));
    }
}

bool has_failed(World& w, PeerId id) { return w[id].status().role == Role::failed; }
std::string reason(World& w, PeerId id) { return w[id].status().reason; }

// Heals, waits until all are in step, and looks for every write that was acknowledged.
std::string settle(World& w) {
    if (w.settle().empty()) w.look_for_promises();
    return w.objections();
}

TEST_SUITE_BEGIN("paper");

#ifndef COORD_NO_FILES

using paper::cut_power;
using paper::Disks;
using paper::options_on;
using paper::SimulatedFiles;
using paper::some_of;
using paper::survivors_of;
using Call = SimulatedFiles::Call;

// A world on copies of those disks, which knows what has been applied and promised on them.
struct Continued {
    Disks disks;
    World w;
    Continued(const Disks& from, const World& before) : disks(from), w(disks.options()) {
        w.ledger = before.ledger;
    }
};

// -------------------------------------------------------------------------------------------------
// D: disks that do not do what they say

// B's disk says ok to every sync and does nothing. Its power is cut. What is lost was acknowledged:
// the leader knows that, or the storage itself sees a hole. Nobody else loses anything.
TEST_CASE("faults D3: a disk that lied about its syncs is found out, and harms nobody else") {
    std::size_t refused = 0, started_over = 0;
    for (std::uint64_t seed = 1; seed <= 16; seed++) {
        CAPTURE(seed);
        coord::Rng rng(seed);
        Disks disks;
        World w(disks.options());
        const SessionId s = three(w);
        disks[B].sync_lies = true;
        write_many(w, A, s, "n", 10);
        REQUIRE(in_step(w, {A, B, C}));
        w.crash(B);
        disks[B].sync_lies = false;
        disks[B].cut_power(seed % 4 == 0 ? std::vector<bool>(disks[B].pending(), false)
                                         : some_of(disks[B].pending(), rng));
        w.ledger.lost_its_disk(B), w.ledger.allow_failure(B);
        w.start(B);
        w.run(seconds(2));
        if (has_failed(w, B)) {
            refused += 1;
            CHECK(reason(w, B) == "its storage has lost what it had acknowledged");
            w.crash(B);
            disks[B] = SimulatedFiles{};
            w.ledger.lost_its_disk(B);
        } else {
            started_over += *w[B].status().damage != 0;
        }
        w.ledger.forbid_failure(B);
        CHECK(w.verify() == "");
        CHECK(w.run_until([&] { return w[B].status().admitted; }));
    }
    CHECK(refused > 0);
    CHECK(started_over > 0);
}

// fsync fails once and would succeed when called again: the pages may be marked clean by then.
TEST_CASE("faults D4: a sync that fails once is final: no acknowledgement, no other try") {
    Disks disks;
    World w(disks.options());
    const SessionId s = three(w);
    w.crash(C);
    w.ledger.allow_failure(B);
    disks[B].fail(Call::sync, 1);
    const CallPtr call = w.create(A, s, "/b");
    w.run(milliseconds(200));
    CHECK(has_failed(w, B));
    CHECK_FALSE(call->done);
    const std::uint64_t calls = disks[B].calls();
    w.run(seconds(1));
    CHECK(disks[B].calls() == calls);
    CHECK_FALSE(call->done);
    w.crash(B);
    w.ledger.forbid_failure(B);
    w.start(B);
    CHECK(w.run_until([&] { return call->done; }));
    CHECK(call->error == Errc::ok);
    CHECK(w.verify() == "");
}

TEST_CASE("faults T9: the leader's disk fails: it stops in that poll, and the others go on") {
    for (const Call kind : {Call::write, Call::sync}) {
        for (const bool is_hinted : {false, true}) {
            CAPTURE(static_cast<int>(kind));
            Disks disks;
            World w(disks.options());
            const SessionId s = three(w);
            w.ledger.allow_failure(A);
            disks[A].fail(kind, 1);
            const CallPtr lost = w.create(A, s, "/lost");
            CHECK(has_failed(w, A));
            CHECK(reason(w, A) == "the storage failed");
            CHECK(lost->done);
            CHECK(lost->error == Errc::outcome_unknown);
            if (is_hinted) w[B].forget(A), w[C].forget(A);
            const Time before = w.now();
            CHECK(w.run_until([&] { return w.leads(B) && w.serves(C); }, seconds(5)));
            CHECK((!is_hinted || w.now() - before < coord::Timing{}.silence));
            CHECK(w.write(C, w.open(C), "/after"));
            const CallPtr late = w.ask(Request::Kind::get, A, s, "/a");
            w.poll(A);
            CHECK(late->error == Errc::replica_failed);
            w.crash(A);
            w.ledger.forbid_failure(A);
            CHECK(w.verify() == "");
        }
    }
}

// What a replica asks of its disk while the ensemble takes writes, snapshots and a restart of it.
void work_with_restart(World& w, PeerId id) {
    const SessionId s = w.open(A);
    write_many(w, A, s, "x", 6);
    if (!has_failed(w, id)) {
        w.crash(id), w.start(id);
        w.run(milliseconds(300));
    }
    write_many(w, A, s, "y", 10);
}

// RETURNS how often B ended over it. A call that finds no space may also be got over.
std::size_t fail_each_call(Errc error) {
    Disks disks;
    World before(disks.options());
    three(before);
    before.crash_all();
    std::size_t failed = 0;
    for (const Call kind : {Call::open, Call::size, Call::read, Call::write, Call::allocate,
                            Call::sync, Call::rename, Call::remove, Call::list, Call::lock,
                            Call::names}) {
        bool is_through = false;
        for (std::uint64_t k = 1; !is_through; k++) {
            CAPTURE(static_cast<int>(kind));
            CAPTURE(k);
            Continued go(disks, before);
            go.w.ledger.allow_failure(B);
            go.disks[B].fail(kind, k, error);
            go.w.start_all();
            REQUIRE(in_step(go.w, {A, C}));
            work_with_restart(go.w, B);
            go.w.run(milliseconds(300));
            is_through = go.disks[B].left_to_fail(kind) > 0;
            failed += has_failed(go.w, B) ? 1u : 0u;
            const bool may_go_on = error == Errc::storage_full || kind == Call::size;  // a spare's
            CHECK((may_go_on || has_failed(go.w, B) != is_through));
            if (error == Errc::storage_full && kind == Call::allocate) CHECK(!has_failed(go.w, B));
            CHECK(std::string(go.w[B].status().damage).empty());
            go.w.crash(B);
            go.disks[B].stop_failing();
            go.w.ledger.forbid_failure(B);
            CHECK(settle(go.w) == "");
        }
    }
    return failed;
}

TEST_CASE("faults D5: each kind of call fails once, at each time, at one of three replicas") {
    CHECK(fail_each_call(Errc::storage_failed) > 50);
}

// No space, no quota, no inode: for what only makes room ahead, or a snapshot, that is no failure.
TEST_CASE("faults D14: each kind of call finds no space, at each time, at one of three replicas") {
    CHECK(fail_each_call(Errc::storage_full) > 20);
}

// Runs change on a copy of the disk, with the power cut before each call in turn, and each time
// with several choices of what survives; calls judge with the disk and whether change had ended.
template <class Change, class Judge>
std::size_t cut_everywhere(const SimulatedFiles& start, std::size_t most, Change change,
                           Judge judge) {
    std::size_t count = 0;
    coord::Rng rng(1);
    for (std::uint64_t k = 1;; k++) {
        CAPTURE(k);
        SimulatedFiles disk = start;
        disk.cut_before(disk.calls() + k);
        const auto reached = change(disk);
        for (const std::vector<bool>& kept : survivors_of(disk.pending(), most, rng)) {
            SimulatedFiles after = disk;
            after.cut_power(kept);
            judge(after, reached);
            count += 1;
        }
        if (!disk.is_cut()) return count;
    }
}

constexpr coord::StorageOwner owner{7, 4711};

// Opens a log on that disk.
struct OpenLog {
    coord::FileStorage storage;
    coord::Log log;
    Errc error;
    explicit OpenLog(SimulatedFiles& disk, std::uint64_t segment_bytes = 512)
        : storage(options_on(disk, segment_bytes)), log(storage), error(log.open(owner)) {}
};

// The records of the two epochs are records of the log like others; a sector has 16 bytes here.
// What is read back is either the old promise or the new one, and it does not change any more when
// the power is cut again after that, whatever was only in the page cache.
TEST_CASE("faults D6 D7: an epoch's record torn anywhere: the old one or the new one, for good") {
    SimulatedFiles start;
    start.sector = 16;
    {
        OpenLog open(start);
        REQUIRE(open.error == Errc::ok);
        REQUIRE(open.log.accept_epoch(3, A) == Errc::ok);
        REQUIRE(open.log.set_current_epoch(3) == Errc::ok);
        REQUIRE(open.log.flush() == Errc::ok);
    }
    start.cut_power(std::vector<bool>(start.pending(), true));
    std::size_t old_ones = 0, new_ones = 0;
    const auto promise = [](SimulatedFiles& disk) {
        OpenLog open(disk);
        return open.error == Errc::ok && open.log.accept_epoch(5, B) == Errc::ok &&
               open.log.flush() == Errc::ok;
    };
    const auto judge = [&](SimulatedFiles& disk, bool is_promised) {
        coord::Log::Epochs found;
        {
            OpenLog open(disk);
            REQUIRE(open.error == Errc::ok);
            found = open.log.epochs();
            CHECK(open.log.durable_epochs().accepted == found.accepted);
        }
        CHECK((found.accepted == 3 || found.accepted == 5));
        CHECK(found.accepted_from == (found.accepted == 3 ? A : B));
        CHECK(found.current == 3);
        CHECK((!is_promised || found.accepted == 5));
        (found.accepted == 3 ? old_ones : new_ones) += 1;
        disk.cut_power(std::vector<bool>(disk.pending(), false));
        OpenLog again(disk);
        REQUIRE(again.error == Errc::ok);
        CHECK(again.log.epochs().accepted == found.accepted);
        CHECK(again.log.epochs().accepted_from == found.accepted_from);
    };
    CHECK(cut_everywhere(start, 12, promise, judge) > 50);
    CHECK(old_ones > 10);
    CHECK(new_ones > 10);
}

Bytes entry_at(Zxid zxid, coord::LogPosition previous, BytesView body) {
    coord::Txn txn;
    txn.zxid = zxid, txn.previous = previous.zxid, txn.previous_crc = previous.crc;
    txn.time_ms = 1, txn.session = SessionId{9}, txn.cxid = zxid.value;
    txn.op = coord::OpCode::set, txn.body = body;
    Bytes record;
    coord::encode_entry(txn, record);
    return record;
}

Errc append(coord::Log& log, Zxid zxid) {
    const Bytes record = entry_at(zxid, log.last(), Bytes(60, 'b'));
    coord::Txn txn;
    const Errc decoded = coord::decode_entry(record, txn);
    return decoded == Errc::ok ? log.append(record, txn) : decoded;
}

std::vector<Zxid> history(const coord::Log& log) {
    std::vector<Zxid> out;
    for (Zxid at = log.base(); at != log.last().zxid;) {
        coord::Txn txn;
        REQUIRE(coord::decode_entry(log.entry_after(at), txn) == Errc::ok);
        at = txn.zxid;
        out.push_back(at);
    }
    return out;
}

// A life of a log over several segments of 512 bytes: twelve entries, back to the fifth, which is
// three segments ago, others in their place. `steps` has the history after each record of it.
using Steps = std::vector<std::vector<Zxid>>;

struct Reached {
    std::size_t written = 0;   // records, as places in steps
    std::size_t durable = 0;
};

Reached rewrite(SimulatedFiles& disk, Steps& steps) {
    Reached reached;
    steps.assign(1, {});
    OpenLog open(disk);
    const auto note = [&](Errc error) {
        if (error != Errc::ok) return false;
        steps.push_back(history(open.log)), reached.written += 1;
        return true;
    };
    const auto flush = [&] {
        if (open.log.flush() != Errc::ok) return false;
        reached.durable = reached.written;
        return true;
    };
    if (open.error != Errc::ok) return reached;
    for (std::uint64_t i = 1; i <= 12; i++) {
        if (!note(append(open.log, Zxid(1, i))) || (i % 3 == 0 && !flush())) return reached;
    }
    if (!note(open.log.truncate(Zxid(1, 5)))) return reached;
    for (std::uint64_t i = 1; i <= 6; i++) {
        if (!note(append(open.log, Zxid(2, i))) || (i % 2 == 0 && !flush())) return reached;
    }
    return reached;
}

// Where a truncation is a change of files, what takes the place of the old segments may be durable
// before those are gone. Here it is one record; whatever survives, the log has a history that it
// had, no older than what was durable, and what is appended then is there after the next start.
TEST_CASE("faults D12: a history cut back over segments and written anew, the power cut anywhere") {
    Steps steps;
    SimulatedFiles whole;
    rewrite(whole, steps);
    const Steps all = steps;
    REQUIRE(all.back().size() == 11);
    std::size_t cut_back = 0;
    const auto judge = [&](SimulatedFiles& disk, const Reached& reached) {
        std::vector<Zxid> found;
        {
            OpenLog open(disk);
            REQUIRE(open.error == Errc::ok);
            found = history(open.log);
            std::size_t place = reached.durable;
            while (place < all.size() && all[place] != found) place++;
            REQUIRE(place < all.size());
            cut_back += place > 12 ? 1 : 0;
            REQUIRE(append(open.log, Zxid(3, 1)) == Errc::ok);
            REQUIRE(open.log.flush() == Errc::ok);
        }
        disk.cut_power(std::vector<bool>(disk.pending(), false));
        found.push_back(Zxid(3, 1));
        OpenLog again(disk);
        REQUIRE(again.error == Errc::ok);
        CHECK(history(again.log) == found);
    };
    const auto change = [&](SimulatedFiles& disk) { return rewrite(disk, steps); };
    CHECK(cut_everywhere(SimulatedFiles{}, 6, change, judge) > 300);
    CHECK(cut_back > 50);
}

// Somebody copies the directory of a storage that is being written: each file as it is when its
// turn comes, in an order of its own. What the copy hands over is what was appended, up to some
// place, or it is refused by name.
TEST_CASE("faults D11: a directory copied from a running storage, file by file") {
    std::size_t sound = 0, refused = 0;
    for (std::uint64_t seed = 1; seed <= 200; seed++) {
        CAPTURE(seed);
        coord::Rng rng(seed);
        SimulatedFiles disk, copy;
        support::Model model;
        coord::FileStorage storage(options_on(disk, 512));
        support::Recovered heard;
        REQUIRE(storage.open(heard, support::owner) == Errc::ok);
        REQUIRE(support::run(storage, model, "aafasfaaafaaf") == Errc::ok);
        std::vector<std::string> paths = disk.paths();
        for (std::size_t i = paths.size(); i > 1; i--) {
            std::swap(paths[i - 1], paths[static_cast<std::size_t>(rng.below(i))]);
        }
        for (const std::string& path : paths) {
            if (disk.exists(path)) copy.set_contents(path, disk.contents(path));
            const char* const steps[] = {"", "aaf", "aaaaaaf", "sf", "Aaf"};
            REQUIRE(support::run(storage, model, steps[rng.below(5)]) == Errc::ok);
        }
        coord::FileStorage copied(options_on(copy, 512));
        support::Recovered found;
        const Errc error = copied.open(found, support::owner);
        REQUIRE((error == Errc::ok || error == Errc::corrupt));
        (error == Errc::ok ? sound : refused) += 1;
        if (error == Errc::corrupt) {
            CHECK_FALSE(copied.reason().empty());
            continue;
        }
        REQUIRE(copied.appended() <= model.items.size());
        CHECK(support::lines_of(copied, found) ==
              model.lines_from(found.snapshot, copied.appended()));
    }
    CHECK(sound > 20);
    CHECK(refused > 5);
}

TEST_CASE("faults D11: a directory that was moved while its storage was closed is that storage") {
    SimulatedFiles disk, moved;
    support::Model model;
    std::uint64_t id = 0;
    {
        coord::FileStorage storage(options_on(disk, 512));
        support::recover(storage, model);
        REQUIRE(support::run(storage, model, "aafasfaaafaaf") == Errc::ok);
        id = storage.id();
    }
    for (const std::string& path : disk.paths()) {
        moved.set_contents("elsewhere/" + path.substr(5), disk.contents(path));
    }
    coord::FileStorageOptions options = options_on(moved, 512);
    options.directory = "elsewhere";
    coord::FileStorage storage(options);
    support::recover(storage, model);
    CHECK(storage.id() == id);
    CHECK(storage.appended() == model.items.size());
}

// -------------------------------------------------------------------------------------------------
// D: disks that are full

TEST_CASE("faults D13: a follower's disk is full: the others go on, and it catches up") {
    Disks disks;
    World w(disks.options());
    const SessionId s = three(w);
    disks[B].capacity = disks.used(B);
    write_many(w, A, s, "n", 40, 100);
    w.run(seconds(1));
    CHECK_FALSE(has_failed(w, B));
    CHECK(w.last(B) < w.last(A));
    CHECK(w.has(B, "/a"));
    disks[B].capacity = UINT64_MAX;
    CHECK(in_step(w, {A, B, C}));
    CHECK(w.verify() == "");
}

// What grows is refused by the leader, what frees something goes on, reads are served; when there
// is space again all is as before.
TEST_CASE("faults D13: every disk is full: no writes, but reads and deletes, and nothing is lost") {
    Disks disks;
    World w(disks.options());
    const SessionId s = three(w);
    for (const PeerId id : w.ids()) disks[id].capacity = disks.used(id);
    CallPtr call;
    int written = 0;
    for (; written < 100; written++) {
        call = w.create(A, s, "/n" + std::to_string(written), Bytes(100, 'v'));
        REQUIRE(w.run_until([&] { return call->done; }, seconds(5)));
        if (call->error != Errc::ok) break;
    }
    CHECK(call->error == Errc::storage_full);
    CHECK(written > 2);
    const CallPtr read = w.ask(Request::Kind::get, A, s, "/n1");
    const CallPtr removed = w.ask(Request::Kind::remove, A, s, "/n0");
    CHECK(w.run_until([&] { return read->done && removed->done; }, seconds(5)));
    CHECK(read->error == Errc::ok);
    w.ledger.forget_promise("/n0");
    for (const PeerId id : w.ids()) {
        CHECK_FALSE(has_failed(w, id));
        CHECK_FALSE(w.has(id, "/n" + std::to_string(written)));
        disks[id].capacity = UINT64_MAX;
    }
    w.run(seconds(10));  // an idle storage looks for space now and then
    CHECK(w.write(A, s, "/later", Bytes(100, 'v')));
    CHECK(w.verify() == "");
}

// -------------------------------------------------------------------------------------------------
// D: disks that rot

// Three disks at rest, with snapshots and a few segments, and a world that knows what is on them.
struct AtRest {
    Disks disks;
    World w;
    explicit AtRest(int writes) : w((disks.segment_bytes = 1024, disks.options())) {
        const SessionId s = three(w);
        write_many(w, A, s, "n", writes);
        REQUIRE(in_step(w, {A, B, C}));
        w.crash_all();
    }
};

// Every 5th byte of every file of one replica, the snapshots' and the segments' that are no longer
// needed among them. It says so and learns from the others, or an older snapshot and a longer log
// are as good, or it did not matter. Nobody ever sees anything but what was written.
TEST_CASE("faults D15 D17: a byte rots at one of three: found out, learned again, never spread") {
    AtRest rest(30);
    REQUIRE(rest.disks.paths(B, "snapshot.").size() >= 3);
    std::size_t started_over = 0, passed_over = 0, count = 0;
    for (const std::string& path : rest.disks[B].paths()) {
        const std::size_t size = rest.disks[B].contents(path).size();
        for (std::size_t at = count % 5; at < size; at += 5) {
            Bytes bytes = rest.disks[B].contents(path);
            if (path.find("spare.") != std::string::npos && at > 100) break;
            if (bytes[at] == 0 && at % 50 != 0 && at > 600) continue;  // what is not written yet
            CAPTURE(path);
            CAPTURE(at);
            Continued go(rest.disks, rest.w);
            bytes[at] = static_cast<char>(bytes[at] ^ 1 << count++ % 8);
            go.disks[B].set_contents(path, bytes);
            go.w.ledger.lost_its_disk(B);
            go.w.start_all();
            const bool is_damaged = *go.w[B].status().damage != 0;
            started_over += is_damaged ? 1 : 0;
            passed_over += go.w[B].log().snapshot_position().zxid <
                           go.w[A].log().snapshot_position().zxid && !is_damaged;
            REQUIRE(settle(go.w) == "");
        }
    }
    CHECK(started_over > 100);
    CHECK(passed_over > 20);
    CHECK(count > 500);
}

// One of three has a rotten record in the middle of its log, another one is gone for good.
TEST_CASE("faults D19 D15: one disk is damaged, another replica is lost: unavailable, never loss") {
    for (const bool comes_back : {false, true}) {
        AtRest rest(5);
        Continued go(rest.disks, rest.w);
        const std::string path = go.disks.paths(B, "log.").back();
        Bytes bytes = go.disks[B].contents(path);
        bytes[200] = static_cast<char>(bytes[200] ^ 4);
        go.disks[B].set_contents(path, bytes);
        go.w.ledger.lost_its_disk(B);
        go.w.start(B), go.w.start(C);
        CHECK_FALSE(go.w.run_until([&] { return go.w.leader() != PeerId{}; }, seconds(10)));
        CHECK_FALSE(std::string(go.w[B].status().damage).empty());
        if (comes_back) go.w.start(A);
        if (comes_back) CHECK(settle(go.w) == "");
        CHECK(go.w.objections() == "");
    }
}

std::size_t end_of(const Bytes& segment) { return segment.find_last_not_of('\0') + 1; }

// A and B have /late, which C has not; then A and B are off. The last byte of B's log has rotted.
// Its mark, or the power, has gone with it where the caller says so.
struct RottenTail {
    Disks disks;
    World w;
    explicit RottenTail(bool has_frame_after, bool is_power_cut) : w(disks.options()) {
        const SessionId s = three(w);
        w.isolate(C);
        REQUIRE(w.write(A, s, "/late"));
        REQUIRE(w.last(B) == w.last(A));
        const std::string path = disks.paths(B, "log.").back();
        const std::size_t end = end_of(disks[B].contents(path));
        if (has_frame_after) REQUIRE(w.write(A, s, "/next"));
        w.crash(A), w.crash(B);
        if (is_power_cut) cut_power(w, disks, B);  // the mark is never synced: it is as it was
        w.lose_all(), w.heal();
        Bytes bytes = disks[B].contents(path);
        bytes[end - 1] = static_cast<char>(bytes[end - 1] ^ 1);
        disks[B].set_contents(path, bytes);
        w.ledger.lost_its_disk(B);
    }
};

// The last record that B has acknowledged rots, and looks like a write that was torn. What was
// written after it is a witness that it was durable: the frame behind it, or the mark. So it is
// damage; B counts for nothing, and with A lost nobody leads.
TEST_CASE("faults D20: the last acknowledged record rots: damage where there is a witness") {
    for (const bool has_frame_after : {false, true}) {
        CAPTURE(has_frame_after);
        RottenTail rotten(has_frame_after, has_frame_after);
        World& w = rotten.w;
        w.start(B);
        if (w.is_up(C)) w.crash(C);
        w.start(C);
        CHECK_FALSE(std::string(w[B].status().damage).empty());
        CHECK_FALSE(w.run_until([&] { return w.leader() != PeerId{}; }, seconds(10)));
        w.start(A);
        CHECK(settle(w) == "");
        CHECK(w.has(B, "/late"));
    }
}

// The limit of it, as the manual of chapter 6 states it: the power was cut before a witness had
// reached the disk. Nothing tells such a record from a torn one, and that is cut off. Where the
// leader, or another voter that has the record, is there, nothing is lost; where B and C alone
// start first, the write is gone though it was acknowledged. A rule that holds here too would have
// every ensemble that lost its power wait for its last voter.
TEST_CASE("faults D20, the limit: no witness had been written: taken for a torn tail, and cut") {
    RottenTail rotten(false, true);
    World& w = rotten.w;
    SUBCASE("the leader is still there: it knows better, and refuses that storage") {
        w.start(A);
        REQUIRE(in_step(w, {A, C}));
        w.start(B);
        CHECK(settle(w) == "");
        CHECK(w.has(B, "/late"));
    }
    SUBCASE("a voter that has it is among the first to start") {
        w.crash(C);
        w.start(A), w.start(B);
        REQUIRE(in_step(w, {A, B}));
        CHECK(settle(w) == "");
        CHECK(w.has(C, "/late"));
    }
    SUBCASE("none that has it is: the write is lost") {
        w.start(B);
        CHECK(std::string(w[B].status().damage).empty());
        REQUIRE(in_step(w, {B, C}));
        CHECK_FALSE(w.has(B, "/late"));
        CHECK(w.objections().find("(/late), which was acknowledged") != std::string::npos);
        w.start(A);
        CHECK(in_step(w, {A, B, C}));  // one history all the same
        CHECK_FALSE(w.has(A, "/late"));
    }
}

#endif  // COORD_NO_FILES

// -------------------------------------------------------------------------------------------------
// D: disks that have no space now and then

// A disk in memory that has no space, for some of its changes, while it is in a mood for that.
class Fickle final : public support::Forwarding {
public:
    struct Mood {
        std::uint32_t refused_permille = 0;
        bool has_room = true;
        std::uint64_t refused = 0;
    };
    Fickle(coord::MemoryStorage& disk, Mood& mood, coord::Rng& rng)
        : Forwarding(disk), mood_(mood), rng_(rng) {}
    Errc append(BytesView record) override {
        return refuses() ? Errc::storage_full : inner_.append(record);
    }
    Errc begin_snapshot() override {
        is_begun_ = !refuses();
        return is_begun_ ? inner_.begin_snapshot() : Errc::storage_full;
    }
    Errc write_snapshot(BytesView piece) override {
        COORD_ASSERT(is_begun_);  // one that was refused is given up
        is_begun_ = !refuses();
        return is_begun_ ? inner_.write_snapshot(piece) : Errc::storage_full;
    }
    Errc end_snapshot(coord::Sequence first_needed, bool replaces) override {
        COORD_ASSERT(is_begun_);
        is_begun_ = false;
        return refuses() ? Errc::storage_full : inner_.end_snapshot(first_needed, replaces);
    }
    bool has_room() const override { return mood_.has_room; }

private:
    bool refuses() {
        const bool is_refused = rng_.chance(mood_.refused_permille);
        mood_.refused += is_refused ? 1 : 0;
        return is_refused;
    }
    Mood& mood_;
    coord::Rng& rng_;
    bool is_begun_ = false;
};

// Three on such disks, which are slow, too; crashes, cut links, messages repeated and swapped.
struct FickleWorld {
    coord::Rng rng;
    coord::MemoryStorage disks[3];
    Fickle::Mood moods[3];
    SessionId sessions[3];
    std::uint64_t starts = 0;
    int names = 0;
    World w;

    explicit FickleWorld(std::uint64_t seed) : rng(seed), w(options()) {
        REQUIRE(bring_up(w, {A, B, C}));
        for (const PeerId id : w.ids()) w.ledger.allow_failure(id);
    }
    WorldOptions options() {
        WorldOptions options;
        options.message_bytes_max = rng.chance(500) ? 1024 : 65536;
        options.tune = [this](coord::ReplicaOptions& replica) {
            replica.entropy = ++starts * 1000 + replica.id.value;
            replica.snapshot_every_entries = 6, replica.log_entries_kept = 2;
        };
        options.storage = [this](PeerId id) -> std::unique_ptr<coord::Storage> {
            return std::make_unique<Fickle>(disk(id), mood(id), rng);
        };
        return options;
    }
    coord::MemoryStorage& disk(PeerId id) { return disks[id.value - 1]; }
    Fickle::Mood& mood(PeerId id) { return moods[id.value - 1]; }
    SessionId& session(PeerId id) { return sessions[id.value - 1]; }

    void crash(PeerId id) {
        if (!w.is_up(id)) return;
        w.crash(id);
        disk(id).crash(static_cast<std::size_t>(rng.below(4)));
        disk(id).stop_holding();
        session(id) = SessionId{};
    }
    void revive_failed() {
        for (const PeerId id : w.ids()) {
            if (!w.is_up(id) || !has_failed(w, id)) continue;
            CHECK(reason(w, id) == "the storage is full");
            crash(id);
            w.start(id);
        }
    }
    void ask(PeerId id, int count, std::size_t bytes_max) {
        for (int i = 0; i < count && w.is_up(id) && session(id) != SessionId{}; i++) {
            const Bytes data(static_cast<std::size_t>(rng.below(bytes_max)), 'v');
            w.create(id, session(id), "/n" + std::to_string(names++), data);
        }
    }
    // It numbers what nobody else gets, and comes back with a full disk: a truncation.
    void isolate(PeerId id) {
        w.isolate(id), w.lose_on_cut_links();
        ask(id, 4, 200);
        w.run(milliseconds(10));
        if (rng.chance(300)) return;
        w.run(seconds(2));
        mood(id).refused_permille = 900;
        w.heal();
    }
    // So many writes are done without it that it needs a snapshot.
    void leave_behind(PeerId id) {
        crash(id);
        for (int i = 0; i < 12; i++) {
            if (w.leader() != PeerId{}) ask(w.leader(), 1, 900);
            w.run(milliseconds(20));
        }
    }
    void shuffle() {
        const std::size_t count = w.packets.size();
        for (std::size_t i = 0; i < count; i++) {
            if (rng.chance(300)) w.packets.push_back(Packet(w.packets[i]));
        }
        for (std::size_t i = 1; i < w.packets.size(); i++) {
            if (rng.chance(300)) std::swap(w.packets[i], w.packets[rng.below(i)]);
        }
    }
    void disturb() {
        const PeerId id{static_cast<std::uint32_t>(rng.below(3)) + 1};
        switch (rng.below(14)) {
            case 0: return crash(id);
            case 1: return isolate(w.leader() != PeerId{} ? w.leader() : id);
            case 2: return w.heal();
            case 3: return w.cut_one_way(id, PeerId{id.value % 3 + 1});
            case 4: return leave_behind(id);
            case 5: return disk(id).hold_flushes();
            case 6:
                for (coord::MemoryStorage& each : disks) each.stop_holding();
                return;
            case 7: return shuffle();
            case 8:
                for (const PeerId each : w.ids()) {
                    if (!w.is_up(each)) w.start(each);
                }
                return;
            case 9: case 10: case 11:
                mood(id).refused_permille = static_cast<std::uint32_t>(rng.below(4)) * 333;
                mood(id).has_room = rng.chance(500);
                return;
            default: return;
        }
    }
    void go_on() {
        revive_failed();
        for (const PeerId id : w.ids()) {
            if (w.serves(id) && session(id) == SessionId{}) {
                SessionId* const place = &session(id);
                w[id].open_session({seconds(3600)}, [place](coord::Result<SessionId> opened) {
                    if (opened) *place = *opened;
                });
            } else if (rng.chance(600)) {
                ask(id, 1, 300);
            }
        }
        for (coord::MemoryStorage& each : disks) {
            if (each.flushed() > each.durable() && rng.chance(500)) {
                each.release(each.durable() + rng.below(3));
            }
        }
        const std::uint64_t most = rng.chance(250) ? 2000 : 60;
        w.run(milliseconds(static_cast<std::int64_t>(rng.below(most))));
    }
    std::string end() {
        for (const PeerId id : w.ids()) {
            mood(id).refused_permille = 0, mood(id).has_room = true;
            disk(id).stop_holding();
        }
        revive_failed();
        for (const PeerId id : w.ids()) w.ledger.forbid_failure(id);
        return w.verify();
    }
};

TEST_CASE("faults D13: disks without space for anything at any time, and then there is space") {
    std::uint64_t refused = 0, promised = 0, installed = 0, given_up = 0;
    for (std::uint64_t seed = 1; seed <= 100; seed++) {
        CAPTURE(seed);
        FickleWorld run(support::seed_or(1) * 1000 + seed);
        for (int i = 0; i < 40; i++) run.disturb(), run.go_on();
        for (const Fickle::Mood& mood : run.moods) refused += mood.refused;
        promised += run.w.ledger.promises().size();
        for (const PeerId id : run.w.ids()) {
            if (!run.w.is_up(id)) continue;
            installed += run.w[id].counters().snapshots_installed;
            given_up += run.w[id].counters().snapshots_given_up;
        }
        CHECK(run.end() == "");
    }
    CHECK(refused > 2000);
    CHECK(promised > 500);
    CHECK(installed > 0);
    CHECK(given_up > 20);
}

// -------------------------------------------------------------------------------------------------
// D: disks that are slow

SimulationOptions simulated(std::uint32_t voters) {
    SimulationOptions options;
    options.voters = voters;
    options.seed = support::seed_or(7);
    return options;
}

// A leader, and all in step with it.
PeerId elect(Simulation& sim) {
    REQUIRE(sim.run_until([&] {
        for (std::uint32_t id = 1; id <= sim.size(); id++) {
            if (!sim.is_running(id) || !sim.replica(id).status().serving) return false;
        }
        return sim.leader() != PeerId{};
    }, seconds(30)));
    return sim.leader();
}

// Of all that run, since each started.
std::uint64_t elections(Simulation& sim) {
    std::uint64_t count = 0;
    for (std::uint32_t id = 1; id <= sim.size(); id++) {
        if (sim.is_running(id)) count += sim.replica(id).counters().elections;
    }
    return count;
}

PeerId other_than(Simulation& sim, PeerId one, PeerId another = {}) {
    for (std::uint32_t id = 1; id <= sim.size(); id++) {
        if (PeerId{id} != one && PeerId{id} != another) return PeerId{id};
    }
    return PeerId{};
}

SessionId open_at(Simulation& sim, PeerId at) {
    SessionId session;
    sim.replica(at).open_session({seconds(3600)}, [&](coord::Result<SessionId> id) {
        session = id ? *id : SessionId{};
    });
    REQUIRE(sim.run_until([&] { return session != SessionId{}; }, seconds(30)));
    return session;
}

// How it ended; Errc::api_error while it has not.
std::shared_ptr<Errc> create(Simulation& sim, PeerId at, SessionId session, BytesView path) {
    auto error = std::make_shared<Errc>(Errc::api_error);
    Request request;
    request.kind = Request::Kind::create, request.path = path;
    request.done = coord::OnCreated([error](coord::Result<coord::Created> r) {
        *error = r.error();
    });
    sim.replica(at).submit(session, std::move(request));
    return error;
}

bool ends(Simulation& sim, const std::shared_ptr<Errc>& error, Duration limit) {
    return sim.run_until([&] { return *error != Errc::api_error; }, limit) && *error == Errc::ok;
}

// A flush of one follower takes a second, ten, a minute: the others do not notice, it is polled
// all the time, and it is in step again afterwards.
TEST_CASE("faults D22: a follower's disk is slow: writes go on, and it stays a follower") {
    for (const Duration slow : {seconds(1), seconds(10), seconds(60)}) {
        CAPTURE(slow);
        Simulation sim(simulated(3));
        const PeerId leader = elect(sim), follower = other_than(sim, leader);
        const SessionId s = open_at(sim, leader);
        const std::uint64_t before_it = elections(sim);
        sim.stall(follower, slow);
        const Time end = sim.now() + slow;
        for (int i = 0; sim.now() + milliseconds(200) < end; i++) {
            const Time before = sim.now();
            REQUIRE(ends(sim, create(sim, leader, s, "/n" + std::to_string(i)), seconds(5)));
            CHECK(sim.now() - before < milliseconds(10));
            sim.run_for(milliseconds(97));
        }
        CHECK(sim.leader() == leader);
        CHECK(sim.replica(follower).status().role == Role::following);
        CHECK(elections(sim) == before_it);
        CHECK_FALSE(sim.replica(follower).tree().contains("/n0"));  // R2: not durable here
        sim.run_for(seconds(1));
        CHECK(sim.replica(follower).status().applied == sim.replica(leader).status().applied);
    }
}

// A leader whose disk alone is slow: its followers commit without it, and then one of them leads.
// It follows, and does not lead again when its disk is quick; its own clients are answered when it
// has their writes itself: what it shows is durable at it.
TEST_CASE("faults D22: the leader's disk is slow: its followers commit, and one of them leads") {
    for (const Duration slow : {seconds(1), seconds(10), seconds(60)}) {
        CAPTURE(slow);
        Simulation sim(simulated(3));
        const PeerId leader = elect(sim), follower = other_than(sim, leader);
        const SessionId own = open_at(sim, leader), remote = open_at(sim, follower);
        const std::uint64_t before_it = elections(sim);
        sim.stall(leader, slow);
        const Time end = sim.now() + slow;
        const auto mine = create(sim, leader, own, "/own");
        const auto theirs = create(sim, follower, remote, "/theirs");
        CHECK(ends(sim, theirs, milliseconds(100)));
        CHECK(sim.replica(follower).tree().contains("/own"));
        sim.run_for(milliseconds(900));  // Timing::silence, and an election
        CHECK(sim.leader() != leader);
        CHECK(sim.leader() != PeerId{});
        CHECK(elections(sim) > before_it);
        const std::uint64_t after_it = elections(sim);
        const auto later = create(sim, follower, remote, "/later");
        CHECK(ends(sim, later, milliseconds(100)));
        if (end > sim.now()) sim.run_for(end - sim.now() - milliseconds(1));
        CHECK(*mine == Errc::api_error);
        CHECK(ends(sim, mine, milliseconds(200)));
        CHECK(sim.leader() != leader);
        CHECK(elections(sim) == after_it);
    }
}

// All disks are slow, each flush for another while, so that the leader's is the slowest again and
// again. The others would not be quicker to promise than they are to commit: nobody moves.
TEST_CASE("faults D22: the disks of all are slow, now this one, now that one: the leader stays") {
    for (const int least : {100, 300}) {
        CAPTURE(least);
        Simulation sim(simulated(3));
        const PeerId leader = elect(sim);
        const SessionId s = open_at(sim, leader);
        const std::uint64_t before_it = elections(sim);
        coord::SimulatedDisk disk;
        disk.flush_min = milliseconds(least), disk.flush_max = milliseconds(1000);
        sim.set_disk(disk);
        std::vector<std::shared_ptr<Errc>> calls;
        for (int i = 0; i < 200; i++) {
            calls.push_back(create(sim, leader, s, "/n" + std::to_string(i)));
            sim.run_for(milliseconds(100));
        }
        for (const auto& call : calls) CHECK(ends(sim, call, seconds(3)));
        CHECK(sim.leader() == leader);
        CHECK(elections(sim) == before_it);
    }
}

// The leader's does not come back: it would answer none of its clients and keep all of its log. The
// others are slow, but not so slow that no election could end.
TEST_CASE("faults D22: all disks are slow, and the leader's stands still: another one leads") {
    Simulation sim(simulated(3));
    const PeerId leader = elect(sim), follower = other_than(sim, leader);
    const SessionId own = open_at(sim, leader), remote = open_at(sim, follower);
    coord::SimulatedDisk disk;
    disk.flush_min = milliseconds(260), disk.flush_max = milliseconds(280);
    sim.set_disk(disk);
    sim.run_for(seconds(2));
    sim.stall(leader, seconds(60));
    const auto mine = create(sim, leader, own, "/own");
    for (int i = 0; i < 100; i++) {
        create(sim, follower, remote, "/n" + std::to_string(i));
        sim.run_for(milliseconds(100));
    }
    CHECK(sim.leader() != leader);
    CHECK(sim.leader() != PeerId{});
    CHECK(sim.replica(follower).tree().contains("/n50"));
    const std::uint64_t after_it = elections(sim);
    sim.run_for(seconds(52));
    CHECK(ends(sim, mine, seconds(1)));
    CHECK(sim.leader() != leader);
    CHECK(elections(sim) == after_it);
}

// Where the disks of a quorum are slow no write ends before they are quick again; nobody loses its
// role over it, no session expires, and what was asked meanwhile is answered.
TEST_CASE("faults D22: the disks of a quorum are slow: writes wait, sessions and roles stay") {
    for (const bool is_leader_slow : {false, true}) {
        Simulation sim(simulated(3));
        const PeerId leader = elect(sim), one = other_than(sim, leader);
        const SessionId s = open_at(sim, leader);
        const std::uint64_t before_it = elections(sim);
        sim.stall(one, seconds(60));
        sim.stall(is_leader_slow ? leader : other_than(sim, leader, one), seconds(60));
        const auto write = create(sim, leader, s, "/n");
        CHECK_FALSE(ends(sim, write, seconds(59)));
        CHECK(*write == Errc::api_error);
        CHECK(sim.leader() == leader);
        CHECK(sim.replica(leader).leader_counters().sessions_expired == 0);
        CHECK(ends(sim, write, seconds(2)));
        CHECK(elections(sim) == before_it);
    }
}

// -------------------------------------------------------------------------------------------------
// D: disks that cannot do what is asked

#if defined(__linux__) && !defined(COORD_NO_FILES)

// A file that cannot be synced makes the storage fail by name: it does not go on with less than it
// promises, unless it is told to (FileStorageOptions::sync). A directory that cannot be keeps its
// names in a way of its own, and is taken as it is. Linux says EINVAL in both cases, of /dev/null
// and of /proc.
TEST_CASE("faults D25: what cannot be synced: a file is an error by name, a directory is taken") {
    const auto files = coord::system_files();
    const coord::Result<coord::FileId> file = files->open("/dev/null", coord::Files::Mode::write);
    REQUIRE(file);
    CHECK(files->sync(*file) == Errc::storage_failed);
    CHECK(std::string(files->error_text()).find("fdatasync") != std::string::npos);
    files->close(*file);
    CHECK(files->sync_directory("/proc") == Errc::ok);
    CHECK(files->sync_directory("/proc/none") == Errc::no_node);

    SimulatedFiles disk;
    disk.fail(Call::sync, 1);
    coord::FileStorageOptions options = options_on(disk, 512);
    {
        coord::FileStorage storage(options);
        support::Recovered heard;
        CHECK(storage.open(heard, support::owner) == Errc::storage_failed);
        CHECK(storage.reason().find("a simulated fault") != std::string::npos);
    }
    disk.end_process();
    disk.fail(Call::sync, 1);
    options.sync = false;
    coord::FileStorage storage(options);
    support::Model model;
    support::recover(storage, model);
    CHECK(support::run(storage, model, "aafsfaf") == Errc::ok);
}

#endif

// -------------------------------------------------------------------------------------------------
// S: snapshots into a disk

#ifndef COORD_NO_FILES

struct Applied final : coord::ReplicaObserver {
    std::map<Zxid, std::uint64_t> digests;
    void on_applied(PeerId, const coord::Txn& txn, const coord::Outcome*,
                    std::uint64_t digest) override {
        digests[txn.zxid] = digest;
    }
};

struct Nobody final : coord::Transport {
    void send(PeerId, BytesView) override {}
    std::size_t message_bytes_max() const override { return 4096; }
};

// A replica alone that takes a snapshot after every third entry. RETURNS the zxid of its newest
// acknowledged write.
Zxid live_alone(SimulatedFiles& disk, Applied& applied, std::uint64_t entropy, int writes) {
    coord::FileStorage storage(options_on(disk, 1024));
    Nobody nobody;
    coord::ReplicaOptions options;
    options.entropy = entropy, options.snapshot_every_entries = 3, options.log_entries_kept = 1;
    coord::Replica replica(options, storage, nobody, &applied);
    Time now{1};
    Zxid acknowledged;
    SessionId session;
    replica.open_session({seconds(3600)}, [&](coord::Result<SessionId> id) {
        if (id) session = *id;
    });
    for (int i = -1; i < writes; i++) {
        if (session != SessionId{}) {
            Request request;
            const std::string path = "/n" + std::to_string(i);
            request.kind = Request::Kind::create, request.path = path;
            request.done = coord::OnCreated([&](coord::Result<coord::Created> r) {
                if (r) acknowledged = r->stat.czxid;
            });
            replica.submit(session, std::move(request));
        }
        for (int polls = 0; polls < 6; polls++) replica.poll(now = now + milliseconds(1), 1);
    }
    return acknowledged;
}

// Crash points of a snapshot: it is written, synced, named; its marker is in the log; older ones
// and segments go. Whatever is on the disk then, the state is the one that there was at that zxid,
// and no acknowledged write is missing.
TEST_CASE("faults S1: the power is cut at each call, a snapshot now and then: the same state") {
    Applied known;
    SimulatedFiles whole;
    const Zxid last = live_alone(whole, known, 1, 14);
    REQUIRE(known.digests.count(last) == 1);
    std::set<Zxid> snapshots;
    std::size_t compared = 0;
    const auto live = [&](SimulatedFiles& disk) { return live_alone(disk, known, 1, 14); };
    const auto judge = [&](SimulatedFiles& disk, Zxid acknowledged) {
        coord::FileStorage storage(options_on(disk, 1024));
        coord::ReplicaOptions options;
        options.entropy = 2;
        coord::Replica replica(options, storage);
        REQUIRE(replica.status().role != Role::failed);
        snapshots.insert(replica.status().applied);
        const Zxid newest = replica.status().last;
        REQUIRE(newest >= acknowledged);
        for (int polls = 1; polls < 6; polls++) replica.poll(Time{polls * 1000000}, 1);
        REQUIRE(replica.status().applied >= newest);
        if (replica.status().applied != newest) return;  // it has gone on with its founding
        REQUIRE(known.digests.count(newest) == 1);
        REQUIRE(replica.status().digest == known.digests[newest]);
        compared += 1;
    };
    CHECK(cut_everywhere(SimulatedFiles{}, 4, live, judge) > 500);
    CHECK(snapshots.size() > 4);
    CHECK(compared > 400);
}

// C has to fetch a snapshot; its disk loses power, finds no space, or fails, at each call. The old
// state is there until the new one is.
TEST_CASE("faults S4: power, space or a call fails while a snapshot is installed: old or new") {
    Disks disks;
    World before(disks.options());
    const SessionId s = three(before);
    before.crash(C);
    before.run(seconds(1));  // it is not waited for any more
    write_many(before, A, s, "n", 40);
    const Zxid old(1, 4), named = before[A].log().snapshot_position().zxid;
    REQUIRE(before[A].log().base() > old);
    before.crash_all();
    coord::Rng rng(5);
    std::size_t olds = 0, news = 0, no_space = 0;
    for (int fault = 0; fault < 4; fault++) {
        bool is_through = false;
        for (std::uint64_t k = 1; !is_through; k++) {
            CAPTURE(fault);
            CAPTURE(k);
            Continued go(disks, before);
            SimulatedFiles& disk = go.disks[C];
            go.w.ledger.allow_failure(C);
            if (fault < 2) disk.cut_before(disk.calls() + k);
            if (fault == 2) disk.fail(Call::write, k, Errc::storage_full);
            if (fault == 3) disk.fail(k % 2 == 0 ? Call::names : Call::sync, k / 2 + 1);
            go.w.start_all();
            go.w.run(milliseconds(600));
            is_through = !has_failed(go.w, C) && k > 4;
            no_space += fault == 2 && !is_through;
            if (is_through) CHECK(go.w[C].log().base() > old);
            if (is_through) break;
            go.w.crash(C);
            disk.stop_failing();
            if (fault < 2) {
                disk.cut_power(fault == 0 ? std::vector<bool>(disk.pending(), false)
                                          : some_of(disk.pending(), rng));
            }
            go.w.ledger.forbid_failure(C);
            go.w.start(C);
            CHECK(std::string(go.w[C].status().damage).empty());
            const Zxid found = go.w[C].status().last;
            CHECK((found == old || found >= named));
            (found == old ? olds : news) += 1;
            CHECK(settle(go.w) == "");
        }
    }
    CHECK(olds > 20);
    CHECK(news > 5);
    CHECK(no_space > 3);
}

// A learner that has to fetch a snapshot, and has no space for it, says so and keeps what it has;
// the others go on. When there is space it is in step, without being started again.
TEST_CASE("faults S4 D13: no space for a snapshot that has to be installed, until there is") {
    for (const std::size_t bytes : {40u, 400u, 4000u}) {  // a part of a piece, a piece, several
        CAPTURE(bytes);
        Disks disks;
        World w(disks.options());
        const SessionId s = three(w);
        w.crash(C);
        w.run(seconds(1));
        write_many(w, A, s, "n", 40, bytes);
        disks[C].capacity = disks.used(C);
        w.start(C);
        const std::uint64_t elections = w[C].counters().elections;
        w.run(seconds(3));
        CHECK(w[C].status().full);
        CHECK(w[C].counters().snapshots_given_up > 2);
        CHECK(w[C].counters().snapshots_given_up < 10);  // later each time
        CHECK(w[C].counters().elections == elections);
        CHECK(w.last(C) == Zxid(1, 4));
        CHECK(w.leads(A));
        CHECK(w.write(A, s, "/more"));
        w.crash(C);
        w.start(C);
        CHECK(w.last(C) == Zxid(1, 4));
        w.run(seconds(1));
        disks[C].capacity = UINT64_MAX;
        CHECK(w.run_until([&] { return w.serves(C); }, seconds(15)));
        w.run(seconds(10));  // an idle storage looks for space now and then
        CHECK_FALSE(w[C].status().full);
        CHECK(w.has(C, "/more"));
        CHECK(w.verify() == "");
    }
}

// It says that it fetches one for as long as it has no space. The leader takes its own meanwhile,
// and drops what they cover.
TEST_CASE("faults D13: a learner without space for a snapshot, and the leader takes its own") {
    Disks disks;
    World w(disks.options());
    const SessionId s = three(w);
    w.crash(C);
    w.run(seconds(1));
    write_many(w, A, s, "n", 40, 400);
    disks[C].capacity = disks.used(C);
    w.start(C);
    w.run(seconds(3));
    REQUIRE(w[C].status().full);
    const std::uint64_t before = w[A].counters().snapshots_taken;
    write_many(w, A, s, "m", 80, 400);
    w.run(seconds(3));
    CHECK(w[A].counters().snapshots_taken >= before + 5);
    CHECK(w[A].log().count_after(w[A].log().base()) < 30);
    disks[C].capacity = UINT64_MAX;
    CHECK(w.run_until([&] { return w.serves(C); }, seconds(15)));
    CHECK(w.verify() == "");
}

// A disk in memory on which nothing at all finds space, while it is told so.
class Full final : public support::Forwarding {
public:
    Full(coord::MemoryStorage& disk, const bool& is_full) : Forwarding(disk), is_full_(is_full) {}
    Errc append(BytesView record) override {
        return is_full_ ? Errc::storage_full : inner_.append(record);
    }
    bool has_room() const override { return !is_full_; }

private:
    const bool& is_full_;
};

// Three on such disks; A leads, and may be told that its own is full.
struct FullWorld {
    std::map<PeerId, coord::MemoryStorage> disks;
    std::map<PeerId, bool> are_full;
    World w;

    FullWorld() : w(options()) {
        three(w);
        w.run(seconds(2));  // nobody has just been met
    }
    WorldOptions options() {
        WorldOptions all;
        all.storage = [this](PeerId id) -> std::unique_ptr<coord::Storage> {
            return std::make_unique<Full>(disks[id], are_full[id]);
        };
        all.tune = [](coord::ReplicaOptions& replica) {
            replica.super_digest = coord::digest_id("super:secret");
        };
        return all;
    }
    // A is polled for its heartbeats, and what follows from them, and not again and again.
    bool rests() {
        w.run(seconds(1));
        const std::uint64_t before = w[A].counters().polls;
        w.run(seconds(1));
        return w[A].counters().polls - before < 100;
    }
};

TEST_CASE("faults D13: the leader's disk is full, and a storage is to be admitted: it rests") {
    FullWorld all;
    World& w = all.w;
    all.are_full[A] = true;
    w.crash(C);
    all.disks[C] = coord::MemoryStorage();
    w.ledger.lost_its_disk(C);
    w.start(C);
    w.run(seconds(3));
    CHECK(w.leads(A));
    CHECK_FALSE(w[C].status().admitted);
    CHECK(all.rests());
    all.are_full[A] = false;
    CHECK(w.run_until([&] { return w[C].status().admitted; }, seconds(5)));
    CHECK(w.verify() == "");
}

// The members are joint, and what ends that finds no space: nothing else is numbered before.
TEST_CASE("faults D13: the leader's disk is full in the middle of a reconfig: it rests") {
    FullWorld all;
    World& w = all.w;
    std::unique_ptr<coord::Session> zk;
    coord::Session::open(w[A], {seconds(3600)}, [&](const coord::Result<coord::Session>& opened) {
        if (opened) zk = std::make_unique<coord::Session>(*opened);
    });
    REQUIRE(w.run_until([&] { return zk != nullptr; }));
    const SessionId near = w.open(A), far = w.open(B);
    int done = 0;
    const auto note = [&](Errc error) { done += error == Errc::ok ? 1 : 100; };
    zk->add_auth("digest", "super:secret", [&](coord::Result<void> r) { note(r.error()); });
    REQUIRE(w.run_until([&] { return done == 1; }));
    coord::Reconfig change;
    change.leaving.push_back(C);
    zk->reconfig(change, [&](const coord::Result<coord::Data>& r) { note(r.error()); });
    w.hold(MessageType::ack, anybody, A);
    w.poll(A);
    w.run(milliseconds(50));
    all.are_full[A] = true;
    w.no_rules();
    CHECK(all.rests());
    REQUIRE(w[A].machine().voters().is_joint());
    CHECK(done == 1);
    const CallPtr from_far = w.ask(Request::Kind::remove, B, far, "/none");
    w.poll(B);
    CHECK(all.rests());
    const CallPtr from_near = w.ask(Request::Kind::remove, A, near, "/none");
    w.poll(A);
    CHECK(all.rests());
    CHECK_FALSE(from_far->done);
    all.are_full[A] = false;
    const auto are_done = [&] { return done == 2 && from_far->done && from_near->done; };
    CHECK(w.run_until(are_done, seconds(5)));
    CHECK(w.ledger.violations().empty());
}

#ifndef COORD_NO_THREADS

// The same behind a thread, which finds out later: before the snapshot counts as installed.
struct ThreadBefore {
    explicit ThreadBefore(const coord::FileStorageOptions& options)
        : files(options), storage(files) {}
    coord::FileStorage files;
    coord::BackgroundStorage storage;
};
class BehindThread final : private ThreadBefore, public support::Forwarding {
public:
    explicit BehindThread(const coord::FileStorageOptions& options)
        : ThreadBefore(options), Forwarding(storage) {}
};

TEST_CASE("faults S4 D13: no space for a snapshot, behind a thread: it waits as well") {
    for (const std::size_t bytes : {40u, 400u, 4000u}) {
        CAPTURE(bytes);
        Disks disks;
        WorldOptions options = disks.options();
        options.storage = [&](PeerId id) -> std::unique_ptr<coord::Storage> {
            return std::make_unique<BehindThread>(options_on(disks[id], disks.segment_bytes));
        };
        World files(disks.options());
        const SessionId s = three(files);
        files.crash(C);
        files.run(seconds(1));
        write_many(files, A, s, "n", 40, bytes);
        files.crash_all();
        disks[C].capacity = disks.used(C);
        World w(options);
        w.ledger = files.ledger;
        w.ledger.allow_failure(C);
        w.start_all();
        const auto run = [&](const std::function<bool()>& condition) {
            for (int i = 0; i < 4000 && !condition(); i++) {
                w.run(milliseconds(10));
                std::this_thread::sleep_for(std::chrono::microseconds(200));
            }
            return condition();
        };
        CHECK(run([&] { return w[C].counters().snapshots_given_up > 2 || has_failed(w, C); }));
        CHECK(w[C].status().role == Role::following);
        CHECK(w.last(C) == Zxid(1, 4));
        w.crash(C);
        disks[C].capacity = UINT64_MAX;
        w.start(C);
        CHECK(run([&] { return w.are_equal(w.ids()); }));
        CHECK(w.has(C, "/n39"));
        CHECK(w.objections() == "");
    }
}

#endif  // COORD_NO_THREADS

#endif  // COORD_NO_FILES

// -------------------------------------------------------------------------------------------------
// S: snapshots from a leader to a learner

WorldOptions fetching_options(std::size_t message_bytes_max = 1024) {
    WorldOptions options;
    options.message_bytes_max = message_bytes_max;
    options.tune = [](coord::ReplicaOptions& replica) {
        replica.snapshot_every_entries = 10, replica.log_entries_kept = 2;
    };
    return options;
}

// What C lacks is in a snapshot alone, of which it gets one chunk after the other, by hand.
struct Fetching {
    World w;
    SessionId s;
    explicit Fetching(std::size_t message_bytes_max = 1024)
        : w(fetching_options(message_bytes_max)), s(three(w)) {
        w.crash(C);
        w.run(seconds(1));  // it is not waited for any more
        write_many(w, A, s, "n", 30, 150);
        w.hold(MessageType::chunk, anybody, C);
        w.start(C);
    }
    std::uint64_t installed() { return w[C].counters().snapshots_installed; }
    // The next one that comes. RETURNS "" where none does.
    Bytes chunk() {
        w.run_until([&] { return w.count(MessageType::chunk, anybody, C) > 0 || w.serves(C); },
                    seconds(3));
        const Packet* const next = w.first(MessageType::chunk, anybody, C);
        if (next == nullptr) return {};
        const Bytes bytes = next->bytes;
        w.deliver(MessageType::chunk, anybody, C);
        w.lose(MessageType::chunk, anybody, C);
        return bytes;
    }
};

// After each chunk in turn: the link breaks for a while, the leader dies, or the leader has taken a
// newer snapshot when the learner is back.
TEST_CASE("faults S2: a transfer interrupted after each chunk: cut, crash, newer snapshot") {
    for (const char* const fault : {"cut", "crash", "newer"}) {
        bool is_through = false;
        std::size_t chunks = 0;
        for (; !is_through; chunks++) {
            CAPTURE(fault);
            CAPTURE(chunks);
            Fetching f;
            for (std::size_t i = 0; i < chunks; i++) REQUIRE_FALSE(f.chunk().empty());
            is_through = f.installed() > 0;
            const Zxid before = f.w[A].log().snapshot_position().zxid;
            if (*fault == 'c' && fault[1] == 'r') {
                f.w.crash(A);
            } else {
                f.w.isolate(C);
                f.w.lose_on_cut_links();
                f.w.run(seconds(2));
                if (*fault == 'n') write_many(f.w, A, f.s, "m", 25, 150);
                f.w.heal();
            }
            f.w.no_rules();
            CHECK(f.w.run_until([&] { return f.w.serves(C) && f.installed() > 0; }));
            if (*fault == 'n') CHECK(f.w[C].log().base() > before);
            CHECK(f.w.verify() == "");
        }
        CHECK(chunks > 6);
    }
}

// Chunks come twice, in the opposite order, and from the transfer before, which was of an older
// snapshot, with the same offsets.
TEST_CASE("faults S3: chunks repeated, reordered, and of an older transfer") {
    Fetching f;
    std::vector<Bytes> old_ones, seen;
    for (int i = 0; i < 6; i++) old_ones.push_back(f.chunk());
    REQUIRE(f.installed() == 0);
    f.w.isolate(C);
    f.w.lose_on_cut_links();
    f.w.run(seconds(2));
    for (int i = 0; i < 30; i++) {  // so that the old one differs in every chunk
        const std::string path = "/n" + std::to_string(i);
        const CallPtr set = f.w.ask(Request::Kind::set, A, f.s, path, Bytes(150, 'w'));
        REQUIRE(f.w.run_until([&] { return set->done; }));
        f.w.ledger.forget_promise(path);
    }
    f.w.heal();
    const auto again = [&](const Bytes& bytes) {
        f.w.deliver_copy({A, C, MessageType::chunk, bytes});
    };
    for (int i = 0; i < 100 && f.installed() == 0; i++) {
        for (const Bytes& bytes : old_ones) again(bytes);
        for (std::size_t j = seen.size(); j-- > 0;) again(seen[j]);
        seen.push_back(f.chunk());
        REQUIRE_FALSE(seen.back().empty());
    }
    CHECK(seen.size() > 6);
    CHECK(f.installed() == 1);
    for (const Bytes& bytes : seen) again(bytes);
    f.w.no_rules();
    CHECK(in_step(f.w, {A, B, C}));
    CHECK(f.installed() == 1);
    CHECK(f.w.verify() == "");
}

TEST_CASE("faults S5: a learner gets one snapshot after the other, in one life") {
    Fetching f;
    for (std::uint64_t i = 1; i <= 4; i++) {
        while (f.installed() < i) REQUIRE_FALSE(f.chunk().empty());
        f.w.isolate(C);  // before the leader has heard of it
        f.w.lose_on_cut_links();
        f.w.run(seconds(1));
        write_many(f.w, A, f.s, "m" + std::to_string(i) + "-", 25, 150);
        f.w.heal();
    }
    REQUIRE(f.w.run_until([&] { return f.w.count(MessageType::chunk, anybody, C) > 0; }));
    const std::uint64_t elections = f.w[C].counters().elections;
    f.w.no_rules();
    CHECK(in_step(f.w, {A, B, C}));
    CHECK(f.installed() == 5);
    CHECK(f.w[C].counters().elections == elections);  // it went straight on from that one
    CHECK(f.w.verify() == "");
}

// A snapshot of n chunks, of one byte more, and of one less; RETURNS its size by chunks' size.
std::size_t fetch_of_size(std::size_t pad, std::size_t& snapshot_bytes) {
    World w(fetching_options());
    const SessionId s = three(w);
    w.crash(C);
    w.run(seconds(1));
    REQUIRE(w.write(A, s, "/pad0", Bytes(400, 'p')));
    for (std::size_t i = 0; i < 3; i++) {
        REQUIRE(w.write(A, s, "/pad" + std::to_string(i + 1), Bytes((pad + i) / 3, 'p')));
    }
    for (int i = 0; i < 20; i++) {
        REQUIRE(w.write(A, s, "/n" + std::to_string(i)));
    }
    w.run(milliseconds(50));
    snapshot_bytes = static_cast<std::size_t>(w[A].log().snapshot_bytes());
    w.hold(MessageType::chunk, A, C);
    w.start(C);
    std::size_t chunks = 0;
    const auto has_come = [&] {
        return w.count(MessageType::chunk, A, C) > 0 || w[C].counters().snapshots_installed > 0;
    };
    while (w.run_until(has_come, seconds(3)) && w.deliver(MessageType::chunk, A, C)) {
        chunks += 1;
        w.lose(MessageType::chunk, A, C);
    }
    w.no_rules();
    CHECK(in_step(w, {A, B, C}));
    CHECK(w.verify() == "");
    return chunks;
}

TEST_CASE("faults S6: snapshots of exactly n messages, of one byte more and of one byte less") {
    const std::size_t room = 1024 - coord::message_overhead_bytes;
    std::size_t plain = 0;
    fetch_of_size(0, plain);
    const std::size_t pad = room * 2 - plain % room;
    for (const std::size_t more : {std::size_t{0}, std::size_t{1}, room - 1}) {
        CAPTURE(more);
        std::size_t bytes = 0;
        const std::size_t chunks = fetch_of_size(pad - room + more, bytes);
        CHECK(bytes % room == more);
        CHECK(chunks == (bytes + room - 1) / room);
    }
}

TEST_CASE("faults S6: a node larger than a chunk, and one larger than a message") {
    World w(fetching_options(1024 * 1024));
    const SessionId s = three(w);
    w.crash(C);
    w.run(seconds(1));
    REQUIRE(w.write(A, s, "/large", Bytes(700 * 1024, 'x')));
    const CallPtr larger = w.create(A, s, "/larger", Bytes(1024 * 1024 - 10, 'x'));
    REQUIRE(w.run_until([&] { return larger->done; }));
    CHECK(larger->error == Errc::too_large);
    write_many(w, A, s, "n", 20);
    w.start(C);
    CHECK(in_step(w, {A, B, C}));
    CHECK(w[C].counters().snapshots_installed == 1);
    CHECK(w.verify() == "");
}

// C has said what it has; before the leader hears it, what C lacks is gone from the leader's log.
TEST_CASE("faults S7: what a learner needs is purged at that moment: it gets the snapshot") {
    World w(fetching_options());
    const SessionId s = three(w);
    w.crash(C);
    REQUIRE(w.write(A, s, "/b"));
    w.hold(MessageType::ack_epoch, C, A);
    w.start(C);
    REQUIRE(w.run_until([&] { return w.count(MessageType::ack_epoch, C, A) > 0; }));
    REQUIRE(w[A].log().contains(w.last(C)));
    const Packet report = *w.first(MessageType::ack_epoch, C, A);
    for (int i = 0; i < 30; i++) w.create(A, s, "/n" + std::to_string(i)), w.flow();
    REQUIRE(w.run_until([&] { return w[A].log().base() > w.last(C); }, milliseconds(40)));
    w.deliver_copy(report);
    CHECK(w.count(MessageType::diff, A, C) == 0);
    CHECK(w.count(MessageType::snap, A, C) + w[C].counters().snapshots_installed > 0);
    w.no_rules();
    CHECK(in_step(w, {A, B, C}));
    CHECK(w[C].counters().snapshots_installed == 1);
    CHECK(w.verify() == "");
}

// Of two hundred writes C gets one message of proposals, or one chunk. It stays behind, as long as
// it must; the leader's log and its queue to C stay bounded, the others go on, and when the load is
// over C is there soon.
TEST_CASE("faults S8: a learner that is always slower than the log grows") {
    World w(fetching_options());
    const SessionId s = three(w);
    w.hold(MessageType::proposal, anybody, C);
    w.hold(MessageType::chunk, anybody, C);
    const std::size_t patience = 10 * 10 + 10000;  // of a leader that takes a snapshot every ten
    std::size_t log_most = 0, queue_most = 0;
    for (int i = 0; i < 120; i++) {
        for (int j = 0; j < 100; j++) {
            CallPtr call = w.ask(Request::Kind::set, A, s, "/a", "x");
            if (j == 99) REQUIRE(w.run_until([&] { return call->done; }, seconds(1)));
        }
        w.run(milliseconds(5));
        w.deliver(MessageType::proposal, A, C);
        w.deliver(MessageType::chunk, A, C);
        w.lose(MessageType::chunk, A, C);
        log_most = (std::max)(log_most, w[A].log().size());
        queue_most = (std::max)(queue_most, w.count(MessageType::proposal, A, C));
    }
    CHECK(w.leads(A));
    CHECK(w.last(C) < w.last(A));
    CHECK(log_most < patience + 500);
    CHECK(log_most > 9000);
    CHECK(queue_most <= 200);
    w.no_rules();
    CHECK(w.run_until([&] { return w.are_equal({A, B, C}); }, seconds(2)));
    CHECK(w.objections() == "");
}

// C is needed: B is down. Then it is the callers who wait, and are throttled: no more is numbered
// than C takes, and the log is no longer than that.
TEST_CASE("faults S8: a learner that is slower than the log would grow, and a quorum needs it") {
    WorldOptions options = fetching_options();
    options.tune = [](coord::ReplicaOptions& replica) {
        replica.snapshot_every_entries = 10, replica.log_entries_kept = 2;
        replica.limits.requests_waiting_max = 50;
    };
    World w(options);
    const SessionId s = three(w);
    w.crash(B);
    w.hold(MessageType::proposal, anybody, C);
    std::vector<CallPtr> calls;
    std::size_t log_most = 0;
    for (int i = 0; i < 100; i++) {
        for (int j = 0; j < 20; j++) {
            calls.push_back(w.ask(Request::Kind::set, A, s, "/a", std::to_string(calls.size())));
        }
        w.run(milliseconds(20));
        w.deliver(MessageType::proposal, A, C);
        log_most = (std::max)(log_most, w[A].log().size());
    }
    CHECK(w.leads(A));
    w.no_rules();
    std::size_t throttled = 0, done = 0;
    REQUIRE(w.run_until([&] {
        return std::all_of(calls.begin(), calls.end(), [](const CallPtr& c) { return c->done; });
    }));
    for (const CallPtr& call : calls) {
        throttled += call->error == Errc::throttled_op ? 1u : 0u;
        done += call->error == Errc::ok ? 1u : 0u;
    }
    CHECK(done > 300);
    CHECK(throttled > 300);
    CHECK(log_most < 500);
    w.start(B);
    CHECK(in_step(w, {A, B, C}));
    const auto node = w[B].tree().find("/a");
    REQUIRE(node);
    CHECK(node->stat.version == static_cast<int>(done));  // what was throttled was not executed
    w.ledger.forget_promise("/a");  // of many values the last one is there
    CHECK(w.verify() == "");
}

// In bytes: entries of 60 kB, of which a few are as much as the log may keep for a slow one.
TEST_CASE("faults S8: what is kept in the log for a slow learner is bounded in bytes, too") {
    WorldOptions options;
    options.message_bytes_max = 128 * 1024;
    options.tune = [](coord::ReplicaOptions& replica) {
        replica.snapshot_every_bytes = 1024 * 1024, replica.log_entries_kept = 2;
    };
    World w(options);
    const SessionId s = three(w);
    w.hold(MessageType::proposal, anybody, C);
    std::size_t log_most = 0;
    for (int i = 0; i < 300; i++) {
        REQUIRE(w.run_until([call = w.ask(Request::Kind::set, A, s, "/a", Bytes(60000, 'v'))] {
            return call->done;
        }));
        w.lose(MessageType::proposal, A, C);
        log_most = (std::max)(log_most, w[A].log().size());
    }
    CHECK(log_most <= 6 * 1024 * 1024 / 60000);
    CHECK(w.last(C) < w.last(A));
    w.no_rules();
    CHECK(in_step(w, {A, B, C}));
    CHECK(w[C].counters().snapshots_installed >= 1);
    w.ledger.forget_promise("/a");
    CHECK(w.verify() == "");
}

// -------------------------------------------------------------------------------------------------
// N: paths

// What the leader's state says of a peer.
std::string said_of(World& w, PeerId leader, PeerId id) {
    const std::string state = w[leader].state_json();
    const std::size_t from = state.find("{\"id\":" + std::to_string(id.value) + ",\"voter\"");
    REQUIRE(from != std::string::npos);
    return state.substr(from, state.find('}', from) - from);
}

bool is_in_step(World& w, PeerId leader, PeerId id) {
    return said_of(w, leader, id).find("\"in_step\":true") != std::string::npos;
}

// The path to C has no room for what is larger: nobody is told. Pings come through.
TEST_CASE("faults N12: only large messages are lost: smaller ones are tried, and it catches up") {
    for (const std::size_t room : {std::size_t{1200}, std::size_t{5000}, std::size_t{40000}}) {
        CAPTURE(room);
        World w(fetching_options(65536));
        const SessionId s = three(w);
        w.crash(C);
        w.run(seconds(1));
        write_many(w, A, s, "n", 100, 700);
        std::size_t lost = 0;
        w.eats = [&](const Packet& packet) {
            const bool is_lost = packet.to == C && packet.bytes.size() > room;
            lost += is_lost ? 1u : 0u;
            return is_lost;
        };
        w.start(C);
        CHECK(w.run_until([&] { return w.are_equal({A, B, C}); }, seconds(20)));
        CHECK(w[C].counters().snapshots_installed == 1);
        CHECK((lost > 0 || room > 16384));  // it has begun with less
        for (int burst = 0; burst < 5; burst++) {
            CallPtr last;
            for (int i = 0; i < 100; i++) {
                last = w.ask(Request::Kind::set, A, s, "/a", Bytes(700, 'w'));
            }
            REQUIRE(w.run_until([&] { return last->done; }));
            CHECK(w.run_until([&] { return w.are_equal({A, B, C}); }, seconds(20)));
        }
        CHECK(w[A].counters().elections == 1);
        CHECK(w[C].counters().elections == 1);
        w.eats = nullptr, w.ledger.forget_promise("/a");
        CHECK(w.verify() == "");
    }
}

// The same while others write little all the time: each of that comes, and shows a gap.
TEST_CASE("faults N12: only large messages are lost, and small ones follow: it catches up") {
    WorldOptions options;
    options.message_bytes_max = 65536;
    World w(options);
    const SessionId s = three(w);
    for (int burst = 0; burst < 20; burst++) {  // as long as the path has room it takes much
        CallPtr last;
        for (int i = 0; i < 20; i++) {
            last = w.ask(Request::Kind::set, A, s, "/a", Bytes(20000, 'w'));
        }
        REQUIRE(w.run_until([&] { return last->done && w.are_equal({A, B, C}); }));
        REQUIRE(last->error == Errc::ok);
    }
    w.eats = [](const Packet& packet) { return packet.to == C && packet.bytes.size() > 5000; };
    for (int i = 0; i < 10; i++) w.ask(Request::Kind::set, A, s, "/a", Bytes(700, 'w'));
    const Zxid before = w.last(A);
    for (int i = 0; i < 300; i++) {
        w.ask(Request::Kind::set, A, s, "/a", Bytes(10, 'w'));
        w.run(milliseconds(30));
    }
    CHECK(w.last(C).counter() > before.counter() + 200);
    CHECK(w[A].counters().elections == 1);
    w.eats = nullptr, w.ledger.forget_promise("/a");
    CHECK(in_step(w, {A, B, C}));
    CHECK(w.verify() == "");
}

// Nothing smaller can be tried: one value alone is too large for the path. C answers every ping,
// and is not taken for one that is in step.
TEST_CASE("faults N12: an entry that the path has no room for: the leader says who lacks it") {
    World w(fetching_options(65536));
    const SessionId s = three(w);
    w.eats = [](const Packet& packet) { return packet.to == C && packet.bytes.size() > 2000; };
    REQUIRE(w.write(A, s, "/large", Bytes(5000, 'v')));
    CHECK(is_in_step(w, A, C));
    w.run(seconds(2));
    CHECK_FALSE(w.has(C, "/large"));
    CHECK_FALSE(is_in_step(w, A, C));
    CHECK(is_in_step(w, A, B));
    REQUIRE(w.write(A, s, "/more"));
    CHECK(w.leads(A));
    CHECK(w[C].status().committed > w[C].status().last);  // it knows, too, that it lacks something
    w.eats = nullptr;
    CHECK(in_step(w, {A, B, C}));
    CHECK(is_in_step(w, A, C));
    CHECK(w.verify() == "");
}

// What is sent to C is delivered in order, so many bytes a second, and nothing is ever lost.
struct Slow {
    World& w;
    std::size_t bytes_per_10ms;
    std::size_t queue_most = 0;
    std::size_t budget = 0;
    void pass(Duration time) {
        for (Duration done; done < time; done = done + milliseconds(10)) {
            w.run(milliseconds(10));
            budget += bytes_per_10ms;
            std::size_t queued = 0, first = w.packets.size();
            for (std::size_t i = w.packets.size(); i-- > 0;) {
                if (w.packets[i].to != C) continue;
                queued += w.packets[i].bytes.size(), first = i;
            }
            queue_most = (std::max)(queue_most, queued);
            while (first < w.packets.size() && budget >= w.packets[first].bytes.size()) {
                budget -= w.packets[first].bytes.size();
                w.deliver_at(first);
                while (first < w.packets.size() && w.packets[first].to != C) first += 1;
            }
            if (first == w.packets.size()) budget = 0;
        }
    }
};

// Twenty times as much is written as the path to C takes. What is on its way to it stays so little
// that pings come in time behind it: it is not thrown out, it answers, and it is always behind.
TEST_CASE("faults N14: a slow receiver: what is on its way is bounded, and it is not thrown out") {
    World w(fetching_options(65536));
    const SessionId s = three(w);
    write_many(w, A, s, "n", 100, 1000);  // one at a time, as long as the path is quick
    REQUIRE(in_step(w, {A, B, C}));
    w.hold_link(A, C), w.hold_link(B, C);
    Slow slow{w, 500};  // 50 kB/s
    const std::uint64_t elections = w[C].counters().elections;
    for (int i = 0; i < 300; i++) {
        for (int j = 0; j < 10; j++) w.ask(Request::Kind::set, A, s, "/a", Bytes(1000, 'v'));
        slow.pass(milliseconds(10));
        CHECK(w[C].status().role == Role::following);
    }
    CHECK(w[C].counters().elections == elections);
    CHECK(w[C].status().serving);
    CHECK(w.last(C) < w.last(A));
    CHECK(w.leads(A));
    CHECK(slow.queue_most < 40000);
    CHECK(w[A].log().size() < 10 * 10 + 10000);
    slow.pass(seconds(70));  // nothing is written any more
    CHECK(w.are_equal({A, B, C}));
    CHECK(w[C].counters().elections == elections);
    w.no_rules(), w.ledger.forget_promise("/a");
    CHECK(w.verify() == "");
}

// And one that has to fetch a snapshot over such a path.
TEST_CASE("faults N14: a slow receiver fetches a snapshot: in pieces that leave time for pings") {
    World w(fetching_options(65536));
    const SessionId s = three(w);
    w.crash(C);
    w.run(seconds(1));
    write_many(w, A, s, "n", 100, 2000);
    w.hold_link(A, C), w.hold_link(B, C);
    Slow slow{w, 500};
    w.start(C);
    slow.pass(seconds(3));
    const std::uint64_t elections = w[C].counters().elections;
    slow.pass(seconds(30));
    CHECK(w[C].counters().snapshots_installed == 1);
    CHECK(w[C].counters().elections == elections);
    CHECK(slow.queue_most < 60000);
    CHECK(w.are_equal({A, B, C}));
    w.no_rules();
    CHECK(w.verify() == "");
}

// What waits at a learner is more than the leader's inbox holds, which others need, too.
TEST_CASE("R17 what a learner sends to the leader before it is answered is bounded in bytes") {
    World w;
    const SessionId s = three(w);
    const auto sent = [&] {
        std::size_t bytes = 0;
        for (const Packet& packet : w.packets) {
            if (packet.type == MessageType::request) bytes += packet.bytes.size();
        }
        return bytes;
    };
    w.crash(A);
    REQUIRE(in_step(w, {B, C}));
    const SessionId own = w.open(C);
    w.hold(MessageType::request, C, anybody);
    std::vector<CallPtr> calls;
    for (int i = 0; i < 500; i++) {
        calls.push_back(w.ask(Request::Kind::set, C, own, "/a", Bytes(30000, 'v')));
    }
    w.run(milliseconds(50));
    CHECK(sent() > 3 * 1024 * 1024);
    CHECK(sent() < 4 * 1024 * 1024 + 65536);
    w[C].audit();
    w.no_rules();
    CHECK(w.run_until([&] { return calls.back()->done; }, seconds(20)));
    for (const CallPtr& call : calls) CHECK(call->error == Errc::ok);
    CHECK(w[C].counters().requests_repeated < 20);
    w.start(A);
    w.ledger.forget_promise("/a");
    CHECK(w.verify() == "");
    static_cast<void>(s);
}

// The leader's inbox is full of what a learner asks for: the answer to a ping finds room.
TEST_CASE("heartbeats find room in an inbox that is full of data") {
    World w;
    const SessionId s = three(w);
    Packet request = {C, A, MessageType::request, {}};
    Message message;
    message.type = MessageType::request, message.from = C, message.to = A, message.ensemble = 7;
    message.epoch = 1;
    const Bytes junk(60000, 'j');
    message.payload = junk;
    coord::encode_message(message, request.bytes);
    w.freeze(A);
    for (int i = 0; i < 400; i++) w[A].receive(C, request.bytes);
    const std::uint64_t overflow = w[A].counters().dropped_overflow;
    CHECK(overflow > 100);
    message.type = MessageType::pong;
    message.payload = BytesView();
    Bytes pong;
    coord::encode_message(message, pong);
    for (int i = 0; i < 1000; i++) w[A].receive(C, pong);
    CHECK(w[A].counters().dropped_overflow == overflow);
    w.thaw(A);
    w.poll(A);
    CHECK(w.leads(A));
    CHECK(w.write(A, s, "/b"));
    CHECK(w.verify() == "");
}

// A transport that takes more than an inbox holds: what is larger would never come.
TEST_CASE("what is larger than an inbox takes is refused, and holds nobody up") {
    WorldOptions options;
    options.message_bytes_max = 32 * 1024 * 1024;
    options.tune = [](coord::ReplicaOptions& replica) {
        replica.limits.data_bytes_max = 31 * 1024 * 1024;
    };
    World w(options);
    const SessionId s = three(w);
    using coord::Replica;
    const std::size_t most = Replica::inbox_bytes_max - Replica::inbox_bytes_reserved;
    const CallPtr large = w.ask(Request::Kind::set, A, s, "/a", Bytes(most, 'v'));
    const CallPtr next = w.ask(Request::Kind::set, A, s, "/a", Bytes(most - 1000, 'v'));
    CHECK(w.run_until([&] { return large->done && next->done; }));
    CHECK(large->error == Errc::too_large);
    CHECK(next->error == Errc::ok);
    CHECK(in_step(w, {A, B, C}));
    w.ledger.forget_promise("/a");
    CHECK(w.verify() == "");
}

// A message as it was, but for what the test changes in it.
template <class Change>
Packet forge(const Packet& like, Change change) {
    Message message = like.message();
    Bytes payload(message.payload);
    change(message, payload);
    message.payload = payload;
    Packet forged = like;
    forged.bytes.clear();
    coord::encode_message(message, forged.bytes);
    return forged;
}

bool has_refused(World& w) { return reason(w, C) == "the leader's snapshot is damaged"; }

// A leader that lies: a byte of the snapshot differs, in a message whose own checksum is right.
// What C has stays as it is, and it is still there when the truth comes.
TEST_CASE("faults S10: a snapshot of which a byte differs is refused") {
    std::size_t refused = 0;
    for (std::size_t at = 0; at < 300; at += 7) {
        CAPTURE(at);
        Fetching f;
        World& w = f.w;
        const Zxid had = w.last(C);
        for (int i = 0; i < 40 && !has_refused(w); i++) {
            w.run_until([&] { return w.count(MessageType::chunk, A, C) > 0; }, seconds(1));
            const Packet* const next = w.first(MessageType::chunk, A, C);
            if (next == nullptr) break;
            const Packet lie = forge(*next, [at](Message& message, Bytes& payload) {
                const auto offset = static_cast<std::size_t>(message.offset);
                if (at < offset || at >= offset + payload.size()) return;
                payload[at - offset] = static_cast<char>(payload[at - offset] ^ 1 << at % 8);
            });
            w.lose(MessageType::chunk, A, C);
            w.deliver_copy(lie);
        }
        refused += has_refused(w);
        CHECK(w[C].counters().snapshots_installed == 0);
        CHECK(w.last(C) == had);
        CHECK(w[C].log().contains(had));
        w.no_rules();
        CHECK(in_step(w, {A, B, C}));
        CHECK(w.objections() == "");
    }
    CHECK(refused > 40);
}

// The same with a state that is sound, and named after another zxid than its own.
TEST_CASE("faults S10: a snapshot that is not of the zxid that its header names is refused") {
    Fetching f;
    World& w = f.w;
    w.crash(C);
    w.lose_all();
    w.hold(MessageType::snap, A, C);
    w.hold(MessageType::chunk_request, C, A);
    w.start(C);
    const Zxid had = w.last(C), named = w[A].log().snapshot_position().zxid;
    const Zxid wrong(named.epoch(), named.counter() + 1);
    for (int i = 0; i < 40 && !has_refused(w); i++) {
        w.run(milliseconds(60));
        for (const MessageType type : {MessageType::snap, MessageType::chunk}) {
            const Packet* const next = w.first(type, A, C);
            if (next == nullptr) continue;
            w.deliver_copy(forge(*next, [&](Message& m, Bytes&) { m.zxid = wrong; }));
            w.lose(type, A, C);
        }
        const Packet* const asked = w.first(MessageType::chunk_request, C, A);
        if (asked == nullptr) continue;
        w.deliver_copy(forge(*asked, [&](Message& m, Bytes&) { m.zxid = named; }));
        w.lose(MessageType::chunk_request, C, A);
    }
    CHECK(has_refused(w));
    CHECK(w.last(C) == had);
    w.no_rules();
    CHECK(w.verify() == "");
}

// -------------------------------------------------------------------------------------------------
// T: processes

// A write is durable at the leader, and of the messages about it so many have left, when the leader
// crashes. The same at a follower, which has it durably and of whose answer nobody hears.
TEST_CASE("faults T2: a crash between durable and sent, and between sent and applied") {
    for (std::size_t sent = 0; sent <= 3; sent++) {
        for (const bool is_back_at_once : {false, true}) {
            CAPTURE(sent);
            World w;
            const SessionId s = three(w);
            w.run(milliseconds(10)), w.flow();
            REQUIRE(w.packets.empty());
            w.create(A, s, "/b", "b");
            REQUIRE(w[A].status().durable == Zxid(1, 5));
            REQUIRE(w.packets.size() >= 2);
            while (w.packets.size() > sent) w.packets.pop_back();
            w.crash(A);
            if (is_back_at_once) w.start(A);
            CHECK(w.run_until([&] { return w.leader() != PeerId{} && w.serves(B); }));
            CHECK(w.write(B, w.open(B), "/c"));
            CHECK(w.verify() == "");
            CHECK(w.has(A, "/b") == w.has(B, "/b"));
        }
    }
    for (const bool is_commit_lost : {false, true}) {
        CAPTURE(is_commit_lost);
        World w;
        const SessionId s = three(w);
        w.crash(C);
        w.hold(MessageType::ack, B, A);
        if (is_commit_lost) w.no_rules(), w.hold(MessageType::commit, A, B);
        const CallPtr call = w.create(A, s, "/b", "b");
        w.flow();
        REQUIRE(w[B].status().durable == Zxid(1, 5));
        REQUIRE(w[B].status().applied == Zxid(1, 4));
        CHECK(call->done == is_commit_lost);
        w.crash(B);
        w.lose_all(), w.no_rules();
        w.start(B);
        CHECK(w.last(B) == Zxid(1, 5));
        CHECK(w.run_until([&] { return call->done; }));
        w.crash(A);  // B alone has it, and C
        w.start(C);
        CHECK(in_step(w, {B, C}));
        CHECK(w.has(C, "/b"));
        CHECK(w.verify() == "");
    }
}

#ifndef COORD_NO_FILES

// All lose their power in the middle of a load: one at any call of its disk, the others wherever
// they are then; of what was not synced some sectors and names survive. Three times over.
TEST_CASE("faults T3: the power of all is cut at once, in the middle of writes, again and again") {
    std::size_t in_a_call = 0;
    for (std::uint64_t seed = 1; seed <= 60; seed++) {
        CAPTURE(seed);
        coord::Rng rng(seed);
        Disks disks;
        disks.segment_bytes = 1024;
        World w(disks.options());
        for (const PeerId id : w.ids()) w.ledger.allow_failure(id), disks[id].sector = 64;
        for (int round = 0; round < 3; round++) {
            REQUIRE(bring_up(w, w.ids()));
            const PeerId leader = w.leader();
            const SessionId s = w.open(leader);
            const PeerId first{static_cast<std::uint32_t>(rng.below(3)) + 1};
            disks[first].cut_before(disks[first].calls() + 1 + rng.below(60));
            for (int i = 0; i < 30 && !disks[first].is_cut(); i++) {
                const std::string path = "/n" + std::to_string(round) + "-" + std::to_string(i);
                w.create(leader, s, path, Bytes(static_cast<std::size_t>(rng.below(200)), 'x'));
                for (std::uint64_t j = rng.below(8); j > 0; j--) {
                    if (!w.packets.empty()) w.deliver_at(0);
                }
            }
            in_a_call += disks[first].is_cut();
            for (const PeerId id : w.ids()) {
                cut_power(w, disks, id, some_of(disks[id].pending(), rng));
            }
            w.lose_all();
        }
        for (const PeerId id : w.ids()) w.ledger.forbid_failure(id);
        REQUIRE(w.verify() == "");
        for (const PeerId id : w.ids()) CHECK(std::string(w[id].status().damage).empty());
    }
    CHECK(in_a_call > 100);
}

#endif  // COORD_NO_FILES

// A replica starts and crashes again every so often, around the times of an election and of
// silence; it is the one that would win one. The others take a write every 100 ms all the time.
TEST_CASE("faults T4: crash loops of every length: the others are not disturbed") {
    for (const std::int64_t ms : {20, 60, 110, 240, 450, 520, 700, 1500}) {
        for (const bool was_leader : {false, true}) {
            CAPTURE(ms);
            CAPTURE(was_leader);
            Simulation sim(simulated(3));
            const PeerId first = elect(sim);
            const PeerId loops = was_leader ? first : other_than(sim, first);
            sim.crash(loops);
            REQUIRE(sim.run_until([&] { return sim.leader() != PeerId{}; }, seconds(5)));
            const PeerId leader = sim.leader(), other = other_than(sim, leader, loops);
            const SessionId s = open_at(sim, other);
            const std::uint32_t epoch = sim.replica(leader).status().epoch;
            const std::uint64_t before_it = elections(sim);
            Time next = sim.now(), longest{};
            for (int i = 0; i < 100; i++) {
                const Time before = sim.now();
                REQUIRE(ends(sim, create(sim, other, s, "/n" + std::to_string(i)), seconds(10)));
                longest = (std::max)(longest, Time{(sim.now() - before).ns});
                const Time until = sim.now() + milliseconds(100);
                while (sim.now() < until) {
                    if (sim.now() >= next) {
                        if (sim.is_running(loops)) sim.crash(loops);
                        sim.restart(loops);
                        next = sim.now() + milliseconds(ms);
                    }
                    sim.run_for((std::min)(until - sim.now(), next - sim.now()));
                }
            }
            CHECK(longest < Time{} + milliseconds(50));
            CHECK(sim.leader() == leader);
            CHECK(sim.replica(leader).status().epoch == epoch);
            sim.crash(loops);
            CHECK(elections(sim) == before_it);
            sim.restart(loops);
            CHECK(sim.replica(leader).log().size() < 300);
            sim.run_for(seconds(2));
            CHECK(sim.replica(loops).status().digest == sim.replica(leader).status().digest);
        }
    }
}

// The leader stands still for so long, between two polls; a write is acknowledged elsewhere in the
// meantime, by it or by the next leader; then it goes on, with a client of its own that syncs and
// reads at once. That read sees the write, however long it was.
// All that these say and hear is of another version of the protocol than what the others speak: as
// if they were another build.
void speaks(World& w, PeerId id, int step) {
    w.rewrites = [id, step](Packet& packet) {
        if (packet.from != id) return;
        packet = forge(packet, [step](Message& message, Bytes&) {
            message.version = static_cast<std::uint16_t>(coord::protocol_version + step);
        });
    };
}

TEST_CASE("faults T13: a replica of the version before, or after, in the same ensemble") {
    for (const int step : {-1, 1}) {
        for (const PeerId other : {A, C}) {  // a leader, and a learner
            CAPTURE(step);
            World w;
            speaks(w, other, step);
            const SessionId s = three(w);
            write_many(w, A, s, "n", 10);
            REQUIRE(in_step(w, {A, B, C}));
            if (other == C) {
                const std::string said = std::to_string(coord::protocol_version + step);
                CHECK(said_of(w, A, C).find("\"version\":" + said) != std::string::npos);
                CHECK(said_of(w, A, B).find("\"version\":" + said) == std::string::npos);
            }
            for (const PeerId id : {A, B, C}) {
                CHECK(w[id].counters().dropped_version == 0);
                CHECK(w[id].counters().dropped_corrupt == 0);
            }
            w.crash(A);  // and over a change of leaders
            REQUIRE(in_step(w, {B, C}));
            w.start(A);
            REQUIRE(in_step(w, {A, B, C}));
            CHECK(w.verify() == "");
        }
    }
}

// It is left out, and all say so: none of what it says is believed, or taken for damage.
TEST_CASE("faults T13: a replica of a version that does not go with the others is refused") {
    for (const int step : {-2, 2}) {
        CAPTURE(step);
        World w;
        const SessionId s = three(w);
        w.crash(C);
        speaks(w, C, step);
        w.start(C);
        w.run(seconds(5));
        CHECK_FALSE(w.serves(C));
        CHECK(w.write(A, s, "/b"));
        CHECK(w[A].counters().dropped_version > 0);
        CHECK(w[B].counters().dropped_version > 0);
        CHECK(w[A].counters().dropped_corrupt == 0);
        CHECK(w.objections() == "");
        w.rewrites = nullptr;  // it is replaced by one that goes
        CHECK(in_step(w, {A, B, C}));
        CHECK(w.verify() == "");
    }
}

// Of a newer one: a message of a kind that is not known here is dropped by name, and all else is
// heard.
TEST_CASE("faults T13: what only a newer version says is refused by name, and the rest is taken") {
    World w;
    const SessionId s = three(w);
    Packet unknown = {B, C, MessageType::ping, {}};
    Message message;
    message.from = B, message.to = C, message.ensemble = 7, message.type = MessageType::ping;
    message.version = coord::protocol_version + 1;
    coord::encode_message(message, unknown.bytes);
    unknown.bytes[34] = 99;
    coord::Writer(unknown.bytes).patch_u32(4, coord::crc32c(BytesView(unknown.bytes).substr(8)));
    w.deliver_copy(unknown);
    w.poll(C);
    CHECK(w[C].counters().dropped_version == 1);
    CHECK(w[C].counters().dropped_corrupt == 0);
    CHECK(w.write(A, s, "/b"));
    CHECK(w.verify() == "");
}

// A newer leader's log has an operation that this build does not know: it is not passed over.
TEST_CASE("faults T13: an entry that only a newer version can apply is not appended") {
    World w;
    const SessionId s = three(w);
    w.rewrites = [](Packet& packet) {
        if (packet.type != MessageType::proposal || packet.to != C) return;
        packet = forge(packet, [](Message&, Bytes& payload) {
            payload[61] = 15;  // the operation of the first entry
            const std::uint32_t length = coord::Reader(payload).u32();
            const BytesView covered = BytesView(payload).substr(8, length - 8);
            const std::uint32_t crc = coord::crc32c(covered);
            coord::Writer(payload).patch_u32(4, crc);
        });
    };
    const Zxid last = w.last(C);
    REQUIRE(w.write(A, s, "/b"));
    w.run(seconds(2));
    CHECK(w.last(C) == last);
    CHECK_FALSE(is_in_step(w, A, C));
    CHECK(w.leads(A));
    CHECK(w.serves(B));
    CHECK(w[C].counters().dropped_version > 0);
    w.rewrites = nullptr;
    CHECK(in_step(w, {A, B, C}));
    CHECK(w.verify() == "");
}

// Its own log has such an entry: it was of a newer build before. It is not set aside as damaged.
TEST_CASE("faults T13: a storage that a newer version has written is refused, and stays as it is") {
    World w;
    const SessionId s = three(w);
    write_many(w, A, s, "n", 3);
    w.crash(C);
    Bytes newer;
    coord::Writer writer(newer);
    writer.u32(9), writer.u32(coord::crc32c(BytesView("\x09", 1))), writer.u8(9);
    REQUIRE(w.disk(C).append(newer) == Errc::ok);
    REQUIRE(w.disk(C).flush() == Errc::ok);
    const std::uint64_t storage = w.disk(C).id();
    w.ledger.allow_failure(C);
    w.start(C);
    CHECK(has_failed(w, C));
    CHECK(reason(w, C) ==
          "a record in the log is of a kind that a newer version of coord has written");
    CHECK(w[C].status().damage == std::string());
    CHECK(w.disk(C).id() == storage);
    CHECK(w.write(A, s, "/more"));
    CHECK(w.objections() == "");
}

TEST_CASE("faults T5: a leader that was paused answers no sync with what was before") {
    for (const std::int64_t ms : {1, 40, 400, 600, 2000, 30000, 600000}) {
        CAPTURE(ms);
        Simulation sim(simulated(3));
        const PeerId leader = elect(sim), other = other_than(sim, leader);
        const SessionId own = open_at(sim, leader), remote = open_at(sim, other);
        const std::uint64_t sent = sim.replica(leader).counters().messages_sent;
        REQUIRE(sim.run_until([&] {
            return sim.replica(leader).counters().messages_sent > sent;
        }, seconds(1)));
        sim.pause(leader);  // and the answers to its pings come while it stands still
        sim.run_for(milliseconds(ms));
        const bool is_deposed = sim.leader() != leader && sim.leader() != PeerId{};
        CHECK((is_deposed || ms < 1000));
        const auto write = create(sim, other, remote, "/w");
        if (is_deposed) REQUIRE(ends(sim, write, seconds(5)));
        Errc synced = Errc::api_error, read = Errc::api_error;
        if (!is_deposed) sim.resume(leader);
        if (!is_deposed) REQUIRE(ends(sim, write, seconds(5)));
        Request sync, get;
        sync.kind = Request::Kind::sync;
        sync.done = coord::OnDone([&](coord::Result<void> r) { synced = r.error(); });
        get.kind = Request::Kind::get, get.path = "/w";
        get.done = coord::OnData([&](const coord::Result<coord::Data>& r) { read = r.error(); });
        sim.replica(leader).submit(own, std::move(sync));
        sim.replica(leader).submit(own, std::move(get));
        if (is_deposed) sim.resume(leader);
        REQUIRE(sim.run_until([&] { return read != Errc::api_error; }, seconds(30)));
        CHECK(synced == Errc::ok);
        CHECK(read == Errc::ok);
        sim.run_for(seconds(2));
        for (std::uint32_t id = 1; id <= 3; id++) {
            CHECK(sim.replica(id).status().digest == sim.replica(leader).status().digest);
        }
    }
}

// The same in the middle of a poll: what it was about to send, proposals, a commit and an answer to
// a sync round, leaves it when the next leader has long committed something else.
TEST_CASE("faults T5: a leader that goes on in the middle of a poll, one epoch too late") {
    World w;
    const SessionId s = three(w);
    const SessionId remote = w.open(C);
    REQUIRE(in_step(w, {A, B, C}));
    w.hold_link(A, B), w.hold_link(A, C);
    const CallPtr lost = w.create(A, s, "/b", "b");
    const CallPtr sync = w.ask(Request::Kind::sync, A, s, "");
    const CallPtr read = w.ask(Request::Kind::get, A, s, "/c");
    const CallPtr asked = w.ask(Request::Kind::sync, C, remote, "");
    w.poll(A), w.poll(C);
    REQUIRE(w.count(MessageType::proposal, A, anybody) > 0);
    w.freeze(A);
    REQUIRE(w.run_until([&] { return w.leads(B) && w.serves(C); }));
    REQUIRE(w.write(C, remote, "/c", "c"));
    CHECK(asked->done);
    w.no_rules();
    w.flow();  // what A had sent arrives, from an epoch that is over
    CHECK_FALSE(w.has(B, "/b"));
    CHECK_FALSE(sync->done);
    w.thaw(A);
    w.poll(A);
    CHECK_FALSE((read->done && read->result == "none"));
    CHECK(w.run_until([&] { return lost->done && read->done; }));
    CHECK(lost->error == Errc::ok);
    CHECK(read->result == "=c");
    CHECK(w.verify() == "");
    CHECK(w.ledger.established(2) == B);
}

// -------------------------------------------------------------------------------------------------
// N: networks that are cut one way, in part, now here and now there. Elections are cheap: what must
// not grow without bound is the epoch, and who has a quorum must not lose its place.

struct Cuts {
    Simulation sim;
    std::map<PeerId, SessionId> sessions;  // one at each
    PeerId leader;
    std::uint32_t before;  // the epoch
    int asked = 0;

    explicit Cuts(std::uint32_t voters) : sim(simulated(voters)) {
        elect(sim);
        for (std::uint32_t id = 1; id <= voters; id++) {
            sessions[PeerId{id}] = open_at(sim, PeerId{id});
        }
        sim.run_for(seconds(3));
        leader = sim.leader(), before = epoch();
    }
    std::uint32_t epoch() {
        std::uint32_t newest = 0;
        for (std::uint32_t id = 1; id <= sim.size(); id++) {
            newest = (std::max)(newest, sim.replica(id).status().accepted_epoch);
        }
        return newest;
    }
    std::uint32_t growth() { return epoch() - before; }
    Role role(PeerId id) { return sim.replica(id).status().role; }
    PeerId other(PeerId than, PeerId and_than = {}) { return other_than(sim, than, and_than); }
    // A write at whoever leads.
    bool goes_on(Duration limit) {
        const PeerId at = sim.leader();
        if (at == PeerId{}) return false;
        asked += 1;
        return ends(sim, create(sim, at, sessions[at], "/n" + std::to_string(asked)), limit);
    }
    // Writes each second for so long; the same one leads all the time, and no epoch begins.
    void stays(Duration duration) {
        const PeerId leads = sim.leader();
        const std::uint32_t epochs = epoch();
        const Time end = sim.now() + duration;
        while (sim.now() < end) {
            CHECK(goes_on(milliseconds(20)));
            REQUIRE(sim.leader() == leads);
            sim.run_for(seconds(1));
        }
        CHECK(epoch() == epochs);
    }
    // What is cut is cut no more: all serve, have all, and nobody has lost its place over it.
    void heals() {
        const PeerId leads = sim.leader();
        const std::uint32_t epochs = epoch();
        sim.heal();
        CHECK(sim.run_until([&] {
            for (std::uint32_t id = 1; id <= sim.size(); id++) {
                if (!sim.replica(id).status().serving) return false;
            }
            return true;
        }, seconds(3)));
        if (leads != PeerId{}) {
            CHECK(sim.leader() == leads);
            CHECK(epoch() == epochs);
        }
        CHECK(goes_on(milliseconds(20)));
        sim.run_for(seconds(1));
        for (std::uint32_t id = 1; id <= sim.size(); id++) {
            CHECK(sim.replica(id).status().digest == sim.replica(sim.leader()).status().digest);
        }
    }
    void make_deaf(PeerId id) { each(id, [&](PeerId peer) { sim.cut(peer, id); }); }
    void make_mute(PeerId id) { each(id, [&](PeerId peer) { sim.cut(id, peer); }); }
    template <class Do>
    void each(PeerId but, Do&& call) {
        for (std::uint32_t id = 1; id <= sim.size(); id++) {
            if (PeerId{id} != but) call(PeerId{id});
        }
    }
    void cut_both(PeerId a, PeerId b) { sim.cut(a, b), sim.cut(b, a); }
};

// Every message to a site that is far away, and from it, takes so long.
struct Far {
    World& w;
    PeerId site;
    Duration there, back;
    std::vector<std::pair<Time, Packet>> under_way;
    Far(World& world, PeerId id, Duration to, Duration from)
        : w(world), site(id), there(to), back(from) {
        w.eats = [this](const Packet& packet) {
            if (packet.to != site && packet.from != site) return false;
            under_way.emplace_back(w.now() + (packet.to == site ? there : back), packet);
            return true;
        };
    }
    ~Far() { w.eats = nullptr; }
    void pass(Duration time) {
        for (const Time end = w.now() + time; w.now() < end;) {
            w.run(milliseconds(5));
            for (std::size_t i = 0; i < under_way.size();) {
                if (under_way[i].first > w.now()) {
                    i += 1;
                    continue;
                }
                const Packet packet = std::move(under_way[i].second);
                under_way.erase(under_way.begin() + static_cast<std::ptrdiff_t>(i));
                w.deliver_copy(packet);
            }
            w.flow();
        }
    }
};

// A follower, or the leader, on another continent: 200 ms there, or back, or both, which is most of
// a silence. Nobody takes it for gone, and each write takes what the way takes.
TEST_CASE("faults N4: a site that is 200 ms away, one way or both: the same leader, and writes") {
    for (const PeerId site : {C, A}) {
        for (const int ways : {1, 2, 3}) {
            CAPTURE(site.value);
            CAPTURE(ways);
            World w;
            const SessionId s = three(w);
            const SessionId remote = w.open(C);
            REQUIRE(in_step(w, {A, B, C}));
            const std::uint64_t elections = w[A].counters().elections + w[B].counters().elections +
                                            w[C].counters().elections;
            {
                Far far(w, site, milliseconds((ways & 1) != 0 ? 200 : 0),
                        milliseconds((ways & 2) != 0 ? 200 : 0));
                far.pass(seconds(2));
                for (int i = 0; i < 15; i++) {
                    const CallPtr near = w.create(A, s, "/n" + std::to_string(i));
                    const CallPtr other = w.create(C, remote, "/c" + std::to_string(i));
                    far.pass(milliseconds(450));
                    CHECK(near->done);
                    far.pass(milliseconds(450));
                    CHECK(other->done);
                }
                CHECK(w.serves(C));
                far.pass(seconds(1));
            }
            CHECK(w.leads(A));
            CHECK(w[A].counters().elections + w[B].counters().elections +
                  w[C].counters().elections == elections);
            CHECK(w.verify() == "");
        }
    }
}

TEST_CASE("faults N6: a leader that is deaf, or mute, makes way in time, and once") {
    const Duration silence = coord::Timing{}.silence, heartbeat = coord::Timing{}.heartbeat;
    for (const std::uint32_t voters : {3u, 5u}) {
        for (const bool is_deaf : {false, true}) {
            CAPTURE(voters);
            CAPTURE(is_deaf);
            Cuts c(voters);
            is_deaf ? c.make_deaf(c.leader) : c.make_mute(c.leader);
            c.sim.run_for(silence + heartbeat * 2);
            CHECK_FALSE(c.sim.replica(c.leader).status().serving);
            REQUIRE(c.sim.run_until([&] { return c.sim.leader() != PeerId{}; }, silence));
            CHECK(c.sim.leader() != c.leader);
            CHECK(c.growth() <= 2);
            c.stays(seconds(600));
            c.heals();
        }
    }
}

// It is one of a minority, whatever it says and hears: nobody waits for it or loses a place.
TEST_CASE("faults N7: a follower that is not heard, or hears nothing, disturbs nobody") {
    for (const std::uint32_t voters : {3u, 5u}) {
        for (const bool is_deaf : {false, true}) {
            for (const bool is_of_leader : {false, true}) {  // or of everybody
                CAPTURE(voters);
                CAPTURE(is_deaf);
                CAPTURE(is_of_leader);
                Cuts c(voters);
                const PeerId follower = c.other(c.leader);
                const std::uint64_t looked = c.sim.replica(follower).counters().elections;
                if (is_of_leader) {
                    is_deaf ? c.sim.cut(c.leader, follower) : c.sim.cut(follower, c.leader);
                } else {
                    is_deaf ? c.make_deaf(follower) : c.make_mute(follower);
                }
                c.stays(seconds(600));
                CHECK(c.growth() == 0);
                const std::uint64_t times =
                    c.sim.replica(follower).counters().elections - looked;
                CHECK(times <= (is_deaf ? 1300u : 0u));  // it tries, a silence each at the least
                c.heals();
            }
        }
    }
}

// A link of the leader's is cut, and the others see both ends: it leads on. So it does at the one
// end of a bridge of five, while it reaches a quorum.
TEST_CASE("faults N8: a partial partition: who leads and has a quorum leads on") {
    for (const std::uint32_t voters : {3u, 5u}) {
        for (const bool is_leader_cut : {false, true}) {
            CAPTURE(voters);
            CAPTURE(is_leader_cut);
            Cuts c(voters);
            const PeerId one = is_leader_cut ? c.leader : c.other(c.leader);
            const PeerId two = c.other(c.leader, one);
            c.cut_both(one, two);
            c.stays(seconds(600));
            CHECK(c.growth() == 0);
            if (is_leader_cut) CHECK(c.role(two) != Role::leading);
            c.heals();
        }
    }
    Cuts c(5);
    const PeerId middle = c.other(c.leader), near_it = c.other(c.leader, middle);
    c.each(c.leader, [&](PeerId id) {
        if (id == middle || id == near_it) return;
        c.cut_both(c.leader, id), c.cut_both(near_it, id);
    });
    c.stays(seconds(600));
    CHECK(c.growth() == 0);
    c.heals();
}

// All links but those of one are cut: it alone reaches a quorum, and leads whoever led before.
TEST_CASE("faults N8: a star: the one in the middle leads, and nobody else tries for ever") {
    for (const std::uint32_t voters : {3u, 5u}) {
        for (std::uint32_t middle = 1; middle <= voters; middle++) {
            CAPTURE(voters);
            CAPTURE(middle);
            Cuts c(voters);
            const bool stays = PeerId{middle} == c.leader;
            c.each(PeerId{middle}, [&](PeerId a) {
                c.each(PeerId{middle}, [&](PeerId b) {
                    if (a != b) c.sim.cut(a, b);
                });
            });
            c.sim.run_for(seconds(3));
            const bool has_quorum = voters == 3;  // of three each end has one, with the middle
            if (!has_quorum) CHECK(c.sim.leader() == PeerId{middle});
            if (has_quorum || stays) CHECK(c.sim.leader() == c.leader);
            CHECK(c.growth() <= (has_quorum || stays ? 0u : 2u));
            c.stays(seconds(600));
            c.heals();
        }
    }
}

// Each second another link is cut, both ways or one; of three and of five. The leader has a quorum
// all the time.
TEST_CASE("faults N9: a partial partition that moves each second: the leader leads on") {
    for (const std::uint32_t voters : {3u, 5u}) {
        for (const bool is_one_way : {false, true}) {
            CAPTURE(voters);
            CAPTURE(is_one_way);
            Cuts c(voters);
            for (std::uint32_t i = 0; i < 600; i++) {
                c.sim.heal();
                const PeerId a{i % voters + 1}, b{(i + 1 + i / voters % (voters - 1)) % voters + 1};
                c.sim.cut(a, b);
                if (!is_one_way) c.sim.cut(b, a);
                c.sim.run_for(milliseconds(900));
                CHECK(c.goes_on(milliseconds(100)));
            }
            CHECK(c.growth() == 0);
            CHECK(c.sim.leader() == c.leader);
            c.heals();
        }
    }
}

// The same with a whole replica each time, the leader in its turn: it costs an epoch then.
TEST_CASE("faults N9: an isolation that moves each second: an epoch for each leader, no more") {
    Cuts c(3);
    std::uint32_t leaders = 0;
    for (std::uint32_t i = 0; i < 600; i++) {
        c.sim.heal();
        const PeerId next{i % 3 + 1};
        leaders += c.sim.leader() == next ? 1u : 0u;
        c.sim.isolate(next);
        c.sim.run_for(seconds(1));
    }
    CHECK(leaders > 100);
    CHECK(c.growth() <= leaders + 2);
    c.sim.heal();
    CHECK(c.sim.run_until([&] { return c.goes_on(milliseconds(100)); }, seconds(3)));
}

// Up for 200 ms, down for 200 ms, for an hour: one link of the leader, all of its, all there are.
// None is down for as long as a silence.
TEST_CASE("faults N10: links that flap for an hour: no epoch, and writes go on") {
    for (const int which : {0, 1, 2}) {
        CAPTURE(which);
        Cuts c(3);
        const Duration half = milliseconds(200);
        const PeerId follower = c.other(c.leader), last = c.other(c.leader, follower);
        for (std::uint32_t i = 0; i < 9000; i++) {
            if (which == 0) c.cut_both(c.leader, follower);
            if (which == 1) c.sim.isolate(c.leader);
            if (which == 2) c.sim.isolate(c.leader), c.cut_both(follower, last);
            c.sim.run_for(half);
            c.sim.heal();
            if (i % 100 == 0) CHECK(c.goes_on(half));
            c.sim.run_for(half);
        }
        CHECK(c.growth() == 0);
        CHECK(c.sim.leader() == c.leader);
        c.heals();
    }
}

// For longer than a silence each time: then it is an election each time, and no more.
TEST_CASE("faults N10: links that are down for long, again and again: an epoch a time, no more") {
    for (const bool is_whole : {false, true}) {
        CAPTURE(is_whole);
        Cuts c(3);
        std::uint32_t led = 0;
        for (std::uint32_t i = 0; i < 1000; i++) {
            led += c.sim.leader() == c.leader ? 1u : 0u;
            is_whole ? c.sim.isolate(c.leader) : c.make_mute(c.leader);
            c.sim.run_for(milliseconds(700));
            c.sim.heal();
            c.sim.run_for(milliseconds(700));
        }
        CHECK(c.growth() <= led + 2);
        CHECK(c.sim.run_until([&] { return c.goes_on(milliseconds(100)); }, seconds(3)));
        c.heals();
    }
}

// Replicas are cut off one by one, in any order and number, and come back one by one in another.
TEST_CASE("faults N11: some are cut off one by one, and come back in another order") {
    coord::Rng rng(support::seed_or(11));
    Cuts c(5);
    for (int round = 0; round < 40; round++) {
        CAPTURE(round);
        std::vector<std::uint32_t> order{1, 2, 3, 4, 5};
        const auto shuffle = [&] {
            for (std::size_t i = order.size(); i > 1; i--) {
                std::swap(order[i - 1], order[rng.below(i)]);
            }
        };
        shuffle();
        order.resize(rng.between(1, 5));
        const auto pause = [&] {
            c.sim.run_for(milliseconds(static_cast<std::int64_t>(rng.between(1, 800))));
        };
        const auto tries = [&] {
            const PeerId at = c.sim.leader();
            if (at != PeerId{}) create(c.sim, at, c.sessions[at], "/t" + std::to_string(c.asked++));
        };
        const std::uint32_t epochs = c.epoch();
        for (const std::uint32_t id : order) c.sim.isolate(id), tries(), pause();
        shuffle();
        for (std::size_t back = 0; back < order.size(); back++) {
            c.sim.heal();
            for (std::size_t i = back + 1; i < order.size(); i++) c.sim.isolate(order[i]);
            tries(), pause();
        }
        c.sim.heal();
        CHECK(c.sim.run_until([&] { return c.goes_on(milliseconds(100)); }, seconds(3)));
        CHECK(c.epoch() - epochs <= 2 * order.size());
        c.sim.run_for(seconds(2));
        c.heals();
    }
}

// C stands still for longer than a silence; meanwhile its inbox fills with what the leader of epoch
// 1 has sent, to the end, and then with what comes of epoch 2. It goes on with all of it at once.
TEST_CASE("faults T6: a follower that was paused finds an inbox full of an epoch that is over") {
    constexpr PeerId late{1}, next{4}, old{5};
    for (const int how : {0, 1, 2}) {
        CAPTURE(how);
        WorldOptions options;
        options.voters = 5;
        World w(options);
        REQUIRE(bring_up(w, w.ids()));
        REQUIRE(w.leads(old));
        const SessionId s = w.open(old);
        REQUIRE(in_step(w, w.ids()));
        w.freeze(late);
        write_many(w, old, s, "n", 50);
        for (std::uint32_t id = 2; id <= 4; id++) w.hold_link(old, PeerId{id});
        std::vector<CallPtr> calls;
        for (int i = 0; i < 20; i++) calls.push_back(w.create(old, s, "/x" + std::to_string(i)));
        w.run(milliseconds(200));
        REQUIRE(w.count(MessageType::proposal, old, late) > 20);
        w.freeze(old);  // those are in its own log alone, and in that inbox
        REQUIRE(w.run_until([&] { return w.leads(next); }));
        write_many(w, next, w.open(next), "m", 50);
        REQUIRE(w[late].status().epoch == 1);
        w.thaw(late);
        if (how == 0) w.poll(late);  // it notices first for how long nobody was heard
        if (how == 2) {  // all of it in one poll
            for (const Packet& packet : w.packets) {
                if (packet.to == late) w[late].receive(packet.from, packet.bytes);
            }
            w.poll(late);
        }
        w.flow();
        CHECK(in_step(w, {late, PeerId{2}, PeerId{3}, next}));
        CHECK_FALSE(w.has(late, "/x0"));
        w.no_rules(), w.thaw(old);
        CHECK(w.run_until([&] { return calls.back()->done; }));
        for (const CallPtr& call : calls) CHECK(call->error == Errc::ok);
        CHECK(w.verify() == "");
    }
}

TEST_SUITE_END();

}  // namespace
