// Bugs that ZooKeeper's implementation of Zab had, and traps in the paper itself, each built step
// by step on real replicas as its report or its analysis tells it. Each test asserts what was
// violated there; verify() then heals everything, looks for every acknowledged write at every
// replica, restarts all from their disks and looks again. "1.5" is counter 5 of epoch 1; the
// founding takes two numbers and opening a session takes one, so that they are higher than in the
// reports.

#include <doctest/doctest.h>

#include "../support.hpp"
#include "harness.hpp"
#include "on_files.hpp"

#include <algorithm>
#include <memory>
#include <vector>

namespace {

using coord::CreateMode;
using coord::Duration;
using coord::milliseconds;
using coord::Request;
using coord::seconds;
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

// Starts those and waits until they serve and are equal.
bool bring_up(World& w, const std::vector<PeerId>& group) {
    for (const PeerId id : group) {
        if (!w.is_up(id)) w.start(id);
    }
    return w.run_until([&] { return w.are_equal(group); });
}

// All voters have been there once, which founds the ensemble: 1.1 and 1.2. Then all stop.
void found(World& w) {
    REQUIRE(bring_up(w, w.ids()));
    w.crash_all();
}

bool in_step(World& w, const std::vector<PeerId>& group) {
    return w.run_until([&] { return w.are_equal(group); });
}

// A leads all three; a session at A has written /a: everybody has 1.4.
SessionId three(World& w) {
    REQUIRE(bring_up(w, {A, B, C}));
    REQUIRE(w.leader() == A);
    const SessionId session = w.open(A);
    REQUIRE(session != SessionId{});
    REQUIRE(w.write(A, session, "/a"));
    REQUIRE(in_step(w, {A, B, C}));
    REQUIRE(w.last(A) == Zxid(1, 4));
    return session;
}

// The same, and then A leads B alone in epoch 2; the session's opening is 2.1. C knows epoch 1.
SessionId two_and_a_late_one(World& w) {
    three(w);
    w.crash_all();
    REQUIRE(bring_up(w, {A, B}));
    REQUIRE(w.leads(A));
    return w.open(A);
}

// Writes /<prefix>1 ... /<prefix>count, not waiting for any answer.
void ask_many(World& w, PeerId at, SessionId session, const std::string& prefix, int count) {
    for (int i = 1; i <= count; i++) {
        w.create(at, session, "/" + prefix + std::to_string(i), std::to_string(i));
    }
}

// Replicas that take snapshots often and forget what is in them.
WorldOptions often(std::size_t message_bytes_max = 65536) {
    WorldOptions options;
    options.message_bytes_max = message_bytes_max;
    options.tune = [](coord::ReplicaOptions& replica) {
        replica.snapshot_every_entries = 10, replica.log_entries_kept = 2;
    };
    return options;
}

// C is down, and nobody waits for it any more, while thirty nodes are written.
void leave_behind(World& w, SessionId session) {
    w.crash(C);
    w.run(seconds(1));
    for (int i = 0; i < 30; i++) {
        REQUIRE(w.write(A, session, "/n" + std::to_string(i), Bytes(150, 'v')));
    }
}

#ifndef COORD_NO_FILES

using paper::cut_power;
using paper::Disks;
using Files = paper::SimulatedFiles;

void append_to(coord::Log& log, Zxid zxid) {
    coord::Txn txn;
    txn.zxid = zxid, txn.previous = log.last().zxid, txn.previous_crc = log.last().crc;
    txn.op = coord::OpCode::set, txn.session = SessionId{9}, txn.cxid = 1, txn.body = "a body";
    Bytes record;
    coord::encode_entry(txn, record);
    REQUIRE(coord::decode_entry(record, txn) == Errc::ok);
    REQUIRE(log.append(record, txn) == Errc::ok);
}

#endif

TEST_SUITE_BEGIN("paper");

// -------------------------------------------------------------------------------------------------
// Traps in the paper, found when Zab was written down in TLA+

// PROPOSE has to go to every learner that was sent NEWLEADER, not only to those that have
// acknowledged it. 1. A leads with B; C is sent NEWLEADER, which is slow. 2. A write commits at A
// and B. 3. C gets what was sent to it, and nothing is sent again: it must have the write.
TEST_CASE("trap 1: a proposal goes to learners that have not acknowledged NEWLEADER") {
    World w;
    const SessionId s = two_and_a_late_one(w);
    w.hold(MessageType::new_leader, A, C);
    w.start(C);
    REQUIRE(w.run_until([&] { return w.count(MessageType::new_leader, A, C) > 0; }));
    CHECK_FALSE(w.serves(C));
    REQUIRE(w.write(A, s, "/between"));
    w.flow();
    CHECK(w[C].log().contains(Zxid(2, 2)));
    CHECK(w[C].status().epoch == 1);
    CHECK_FALSE(w.serves(C));
    w.no_rules();
    w.flow();  // no time passes, so nothing is repeated
    CHECK(w.serves(C));
    CHECK(w.has(C, "/between"));
    CHECK(w.verify() == "");
}

// A learner gets a PROPOSE that the synchronization contained already, and everything twice.
TEST_CASE("trap 2: a duplicate proposal is dropped") {
    World w;
    const SessionId s = three(w);
    w.crash(C);
    REQUIRE(w.write(A, s, "/b"));
    w.hold(MessageType::proposal, A, C);
    w.start(C);
    REQUIRE(w.run_until([&] { return w.count(MessageType::proposal, A, C) > 0; }));
    const Packet twice = *w.first(MessageType::proposal, A, C);
    w.no_rules();
    w.deliver_copy(twice);
    w.deliver_copy(twice);
    REQUIRE(in_step(w, {A, B, C}));
    const std::uint64_t applied = w[C].counters().applied;
    w.deliver_copy(twice);
    w.run(seconds(1));
    CHECK(w[C].counters().applied == applied);
    CHECK(w.last(C) == w.last(A));
    CHECK(w.verify() == "");
}

// COMMIT-LD (UPTODATE) has to carry the newest committed zxid, not the one that the learner has
// acknowledged with NEWLEADER. 1. C's ACK of NEWLEADER is slow. 2. A and B commit a write. 3. The
// ACK arrives; C hears of no other commit than UPTODATE's.
TEST_CASE("trap 3: UPTODATE carries the newest commit") {
    World w;
    const SessionId s = two_and_a_late_one(w);
    w.hold(MessageType::ack, C, A);
    w.lose_from_now(MessageType::commit, A, C);
    w.lose_from_now(MessageType::ping, A, C);
    w.start(C);
    REQUIRE(w.run_until([&] { return w.count(MessageType::ack, C, A) > 0; }));
    w.flow();
    REQUIRE(w.write(A, s, "/between"));
    w.flow();
    CHECK_FALSE(w.has(C, "/between"));
    w.hold(MessageType::up_to_date, A, C);
    while (w.count(MessageType::up_to_date, A, C) == 0) {
        REQUIRE(w.deliver(MessageType::ack, C, A));
    }
    CHECK(w.first(MessageType::up_to_date, A, C)->message().commit == Zxid(2, 2));
    REQUIRE(w.deliver(MessageType::up_to_date, A, C));
    CHECK(w.serves(C));
    CHECK(w.has(C, "/between"));
    CHECK(w.verify() == "");
}

// -------------------------------------------------------------------------------------------------
// A: recovery and synchronization

// 1. A leads epoch 1, all have 1.4. 2. A logs 1.5 alone. 3. A is cut off and becomes LOOKING, its
// memory still at 1.4. 4. B and C elect B and commit in epoch 2. 5. A comes back: it must report
// 1.5 and be truncated. 6. A restarts. ZooKeeper: A reported its memory, kept 1.5 in its log, and
// replayed it. Violated: agreement, process consistency.
TEST_CASE("ZooKeeper A1 (ZOOKEEPER-2845): an uncommitted tail does not survive an election") {
    World w;
    const SessionId s = three(w);
    w.isolate(A);
    w.create(A, s, "/alone");
    REQUIRE(w.last(A) == Zxid(1, 5));
    REQUIRE(w.last(B) == Zxid(1, 4));
    REQUIRE(w.run_until([&] { return w.leads(B) && w[A].status().role == Role::looking; }));
    CHECK(w[A].status().applied == Zxid(1, 4));
    REQUIRE(w.write(B, w.open(B), "/b"));
    w.hold(MessageType::ack_epoch, A, B);
    w.hold(MessageType::trunc, B, A);
    w.heal();
    REQUIRE(w.run_until([&] { return w.count(MessageType::ack_epoch, A, B) > 0; }));
    CHECK(w.first(MessageType::ack_epoch, A, B)->message().zxid == Zxid(1, 5));
    REQUIRE(w.deliver(MessageType::ack_epoch, A, B));
    REQUIRE(w.count(MessageType::trunc, B, A) == 1);
    w.no_rules();
    REQUIRE(in_step(w, {A, B, C}));
    CHECK_FALSE(w[A].log().contains(Zxid(1, 5)));
    w.crash(A);
    w.start(A);
    CHECK_FALSE(w[A].log().contains(Zxid(1, 5)));
    CHECK(w.verify() == "");
}

// 1. All have 1.4; all stop. 2. A and B: B leads epoch 2 and logs 2.1 alone; both stop. 3. A and C
// commit in epoch 3, C takes a snapshot and drops its log; both stop. 4. B and C: C wins and has
// nothing but a snapshot for B. 5. They commit in epoch 4. 6. B restarts. ZooKeeper: the snapshot
// lay beside the old log, and 2.1 was replayed over it. Here B also crashes just before and just
// after the snapshot has become durable. Violated: agreement.
void snapshot_over_a_tail(World& w, std::size_t survivors) {
    constexpr PeerId a{1}, b{2}, c{3};
    REQUIRE(bring_up(w, {a, b, c}));
    REQUIRE(w.write(c, w.open(c), "/a"));
    REQUIRE(in_step(w, {a, b, c}));
    w.crash_all();

    REQUIRE(bring_up(w, {a, b}));
    REQUIRE(w.leads(b));
    w.cut(a, b);
    w[b].open_session({}, {});
    w.poll(b);
    REQUIRE(w[b].log().contains(Zxid(2, 1)));
    w.crash_all();
    w.heal();

    REQUIRE(bring_up(w, {a, c}));
    REQUIRE(w.write(c, w.open(c), "/c"));
    REQUIRE(in_step(w, {a, c}));
    REQUIRE(w.run_until([&] { return w[c].log().base() == w.last(c); }));
    const Zxid snapshot = w.last(c);
    w.crash_all();

    w.hold(MessageType::chunk, c, b);
    w.start(b);
    w.start(c);
    REQUIRE(w.run_until([&] { return w.count(MessageType::chunk, c, b) > 0; }));
    w.disk(b).hold_flushes();
    REQUIRE(w.deliver(MessageType::chunk, c, b));
    CHECK(w[b].log().base() == snapshot);
    CHECK_FALSE(w[b].log().contains(Zxid(2, 1)));
    w.flow();
    CHECK_FALSE(w.serves(c));  // nothing of it is durable at b
    w.crash(b, survivors);
    w.start(b);
    CHECK(w[b].log().contains(Zxid(2, 1)) == (survivors == 0));  // as it was, whole, or not at all
    CHECK((w[b].log().base() == snapshot) == (survivors > 0));
    w.no_rules();
    REQUIRE(in_step(w, {b, c}));
    CHECK(w.leads(c));
    REQUIRE(w.write(c, w.open(c), "/d"));
    REQUIRE(in_step(w, {b, c}));
    w.crash(b);
    w.start(b);
    CHECK(w[b].log().base() >= snapshot);
    CHECK_FALSE(w[b].log().contains(Zxid(2, 1)));
    CHECK(w.has(b, "/c"));
    CHECK(w.verify() == "");
}

TEST_CASE("ZooKeeper A2 (ZOOKEEPER-2832): an installed snapshot replaces the old tail of the log") {
    for (std::size_t survivors = 0; survivors <= 1; survivors++) {
        CAPTURE(survivors);
        WorldOptions options;
        options.tune = [](coord::ReplicaOptions& replica) {
            if (replica.id != PeerId{3}) return;
            replica.snapshot_every_entries = 1, replica.log_entries_kept = 0;
        };
        World w(options);
        snapshot_over_a_tail(w, survivors);
    }
}

// A has 1.1 to 1.12, of which B and C have 1.7. All stop. Then A and C start, and C is given 1.8 to
// 1.12, its disk making nothing durable any more.
void tail_at_a(World& w) {
    REQUIRE(bring_up(w, {A, B, C}));
    const SessionId s = w.open(A);
    ask_many(w, A, s, "x", 4);
    REQUIRE(in_step(w, {A, B, C}));
    REQUIRE(w.last(B) == Zxid(1, 7));
    w.lose_from_now(MessageType::proposal, A, anybody);
    ask_many(w, A, s, "y", 5);
    REQUIRE(w[A].status().durable == Zxid(1, 12));
    REQUIRE(w.last(C) == Zxid(1, 7));
    w.crash_all();
    w.no_rules();
    w.hold(MessageType::proposal, A, C);
    w.start(A);
    w.start(C);
    REQUIRE(w.run_until([&] { return w.count(MessageType::proposal, A, C) > 0; }));
    w.disk(C).hold_flushes();
    w.no_rules();
    w.flow();
    REQUIRE(w.last(C) == Zxid(1, 12));
    REQUIRE(w[C].status().durable == Zxid(1, 7));
}

// 1. A has 1.8 to 1.12, which nobody acknowledged; B is down. 2. A and C: A leads epoch 2 and
// sends C a DIFF, which C keeps in memory and acknowledges. 3. A is established, clients read 1.12.
// 4. A and C crash before C writes. 5. B and C form a quorum without it. Violated: committed
// durability, monotonic reads. Here A must not serve before C's disk has it.
TEST_CASE("ZooKeeper A3 (ZOOKEEPER-3911): a DIFF is durable before NEWLEADER is acknowledged") {
    World w;
    tail_at_a(w);
    w.run(milliseconds(200));
    CHECK_FALSE(w.serves(A));
    CHECK(w[A].status().applied <= Zxid(1, 7));
    SUBCASE("the crash comes first: nobody has read it") {
        w.crash(A);
        w.crash(C);
        REQUIRE(bring_up(w, {B, C}));
        CHECK_FALSE(w[B].log().contains(Zxid(1, 8)));
        REQUIRE(w.write(B, w.open(B), "/after"));
        CHECK(w.verify() == "");
        CHECK_FALSE(w[A].log().contains(Zxid(1, 12)));
    }
    SUBCASE("the disk comes first: what is read stays") {
        w.release(C);
        w.disk(C).stop_holding();
        w.flow();
        REQUIRE(w.serves(A));
        const SessionId s = w.open(A);
        const CallPtr read = w.ask(Request::Kind::get, A, s, "/y5");
        REQUIRE(w.run_until([&] { return read->done; }));
        REQUIRE(read->result == "=5");
        w.ledger.promise({Zxid(1, 12), w[A].log().crc_at(Zxid(1, 12)), "/y5", "5"});
        w.crash(A);
        w.crash(C);
        REQUIRE(bring_up(w, {B, C}));
        CHECK(w.has(w.leader(), "/y5"));
        CHECK(w.verify() == "");
    }
}

// The same, C's writer being another thread: its records become durable one by one. 1. to 2. as A3.
// 3. C has made some of them durable, and acknowledged NEWLEADER. 4. A and C crash, or C restarts
// in good order (ZOOKEEPER-4785). Violated: committed durability.
TEST_CASE("ZooKeeper A4 (ZOOKEEPER-3023, 4646, 4785): no acknowledgement for what is only queued") {
    for (coord::Sequence durable = 0; durable <= 6; durable++) {
        CAPTURE(durable);
        World w;
        tail_at_a(w);
        const coord::Sequence queued = w.disk(C).appended() - w.disk(C).durable();
        REQUIRE(queued == 6);  // five entries, and then the epoch
        w.release_some(C, durable);
        w.flow();
        CHECK(w.serves(A) == (durable == queued));
        const bool restarts_in_order = durable % 2 == 1;
        if (!restarts_in_order) w.crash(A);
        w.crash(C, restarts_in_order ? 6 : 0);
        REQUIRE(bring_up(w, {B, C}));
        CHECK(w.verify() == "");
    }
}

// The same for a write: the disks of both followers are busy, so that nobody but A has 1.5. Then B
// has it; A and C crash, and what C has not written is gone. Violated: committed durability.
TEST_CASE("ZooKeeper A4 (ZOOKEEPER-3023, 4646, 4785): nor of a proposal that is only queued") {
    World w;
    const SessionId s = three(w);
    w.disk(B).hold_flushes();
    w.disk(C).hold_flushes();
    const CallPtr call = w.create(A, s, "/b");
    w.run(milliseconds(200));
    REQUIRE(w.last(B) == Zxid(1, 5));
    REQUIRE(w.last(C) == Zxid(1, 5));
    CHECK_FALSE(call->done);
    CHECK(w[A].status().committed == Zxid(1, 4));
    w.release(B);
    w.flow();
    CHECK(call->done);
    w.crash(A);
    w.crash(C);
    w.disk(B).stop_holding();
    REQUIRE(bring_up(w, {B, C}));
    CHECK(w.leads(B));
    CHECK(w.has(C, "/b"));
    CHECK(w.verify() == "");
}

// 1. A and B commit 2.2; C has 1.2. 2. A is cut off; B leads epoch 3 with C: DIFF, NEWLEADER.
// 3. C makes epoch 3 current and crashes before the history is durable. 4. B crashes; A and C
// restart. 5. C wins by its epoch and truncates A. Violated: committed durability, leader
// completeness. Here C crashes after each single record.
TEST_CASE("ZooKeeper A5 (ZOOKEEPER-4643): the history is durable before the epoch is current") {
    for (std::size_t survivors = 0; survivors <= 3; survivors++) {
        CAPTURE(survivors);
        World w;
        found(w);
        REQUIRE(bring_up(w, {A, B}));
        REQUIRE(w.write(A, w.open(A), "/a"));
        REQUIRE(in_step(w, {A, B}));
        w.isolate(A);
        w.hold(MessageType::proposal, B, C);
        w.start(C);
        REQUIRE(w.run_until([&] { return w.count(MessageType::proposal, B, C) > 0; }));
        REQUIRE(w[C].status().accepted_epoch == 3);
        w.disk(C).hold_flushes();
        w.no_rules();
        w.flow();
        REQUIRE(w.disk(C).appended() - w.disk(C).durable() == 3);
        w.crash(C, survivors);
        w.crash(B);
        w.crash(A);
        w.lose_all();
        w.heal();
        w.start(C);
        const bool newer = w[C].status().epoch == 3;
        CHECK(newer == (survivors == 3));
        if (newer) CHECK(w.last(C) == Zxid(2, 2));
        REQUIRE(bring_up(w, {A, C}));
        CHECK(w.has(w.leader(), "/a"));
        CHECK(w.verify() == "");
    }
}

// The same with nothing to synchronize: the epoch alone has to be durable before C counts for A.
TEST_CASE("ZooKeeper A5 (ZOOKEEPER-4643): NEWLEADER is acknowledged when the epoch is durable") {
    World w;
    three(w);
    w.crash_all();
    w.hold(MessageType::new_leader, A, C);
    w.start(A);
    w.start(C);
    REQUIRE(w.run_until([&] { return w.count(MessageType::new_leader, A, C) > 0; }));
    w.disk(C).hold_flushes();
    w.no_rules();
    w.run(milliseconds(200));
    REQUIRE(w.disk(C).flushed() > w.disk(C).durable());
    CHECK_FALSE(w.serves(A));
    w.disk(C).stop_holding();
    CHECK(w.run_until([&] { return w.are_equal({A, C}); }, seconds(1)));
    CHECK(w.verify() == "");
}

// The stream to a learner is DIFF, P1, C1, P2, NEWLEADER, C2, UPTODATE. ZooKeeper's learner threw
// its pending proposals away at NEWLEADER and stopped at C2. Violated: liveness.
TEST_CASE("ZooKeeper A6 (ZOOKEEPER-4394): a commit between NEWLEADER and UPTODATE") {
    World w;
    const SessionId s = three(w);
    w.crash(C);
    REQUIRE(w.write(A, s, "/p1"));
    w.hold_link(A, C);
    w.hold(MessageType::ack, C, A);
    w.start(C);
    const auto arrives = [&](MessageType type) {
        return w.run_until([&, type] { return w.count(type, A, C) > 0; }, seconds(2));
    };
    REQUIRE(arrives(MessageType::notification));
    REQUIRE(w.deliver(MessageType::notification, A, C));
    REQUIRE(arrives(MessageType::leader_info));
    REQUIRE(w.deliver(MessageType::leader_info, A, C));
    REQUIRE(arrives(MessageType::new_leader));
    REQUIRE(w.deliver(MessageType::diff, A, C));
    REQUIRE(w.deliver(MessageType::proposal, A, C));  // P1
    const CallPtr p2 = w.create(A, s, "/p2");
    REQUIRE(w.deliver(MessageType::proposal, A, C));  // P2
    REQUIRE(w[C].log().contains(Zxid(1, 6)));
    REQUIRE(w.deliver(MessageType::new_leader, A, C));
    REQUIRE(w.run_until([&] { return p2->done; }, milliseconds(10)));
    REQUIRE(w.deliver(MessageType::commit, A, C));    // C2
    CHECK_FALSE(w.serves(C));
    w.no_rules();
    w.flow();
    CHECK(w.serves(C));
    CHECK(w.has(C, "/p2"));
    CHECK(w.verify() == "");
}

// The same without a script: a leader that never rests lets a learner in.
TEST_CASE("ZooKeeper A6 (ZOOKEEPER-4394): a busy leader lets a learner in") {
    World w;
    const SessionId s = three(w);
    w.crash(C);
    w.start(C);
    int busy = 0;
    while (!w.serves(C) && busy < 500) {
        busy += 1;
        w.create(A, s, "/busy" + std::to_string(busy));
        w.run(milliseconds(1));
    }
    CHECK(busy < 500);
    CHECK(w.verify() == "");
}

// 1. The learner's log thread runs before it has acknowledged NEWLEADER. 2. Its ACK of a proposal
// comes first. 3. The leader took it for an ACK of NEWLEADER of another epoch, and never counted
// the learner. Violated: liveness. Here every ACK of a learner that had to catch up comes in the
// opposite order, once.
TEST_CASE("ZooKeeper A7 (ZOOKEEPER-4685): an ACK of a proposal overtakes the ACK of NEWLEADER") {
    World w;
    const SessionId s = three(w);
    w.lose_from_now(MessageType::proposal, A, anybody);
    ask_many(w, A, s, "y", 3);
    w.crash_all();
    w.no_rules();
    w.hold(MessageType::ack, B, A);
    w.start(A);
    w.start(B);
    REQUIRE(w.run_until([&] { return w.count(MessageType::ack, B, A) > 1; }));
    w.flow();
    REQUIRE(w[B].log().contains(Zxid(1, 7)));
    for (std::size_t i = w.packets.size(); i-- > 0;) {
        if (w.packets[i].type == MessageType::ack) w.deliver_at(i);
    }
    CHECK(w.serves(A));
    w.no_rules();
    w.flow();
    CHECK(w.serves(B));
    CHECK(w.verify() == "");
}

// 1. C follows epoch 1 with 1.5 queued and not written. 2. The link breaks; C leaves the role, and
// its writer goes on. 3. C synchronizes with the leader of epoch 2 from too low a zxid. 4. The old
// writer writes 1.5 after records of epoch 2. Violated: process consistency, agreement. Here the
// disk makes durable one record after the other, and C crashes after each number of them.
TEST_CASE("ZooKeeper A8 (ZOOKEEPER-4712, 4541): what the old role had queued does not come later") {
    for (int records = 0; records <= 6; records++) {
        CAPTURE(records);
        World w;
        const SessionId s = three(w);
        w.disk(C).hold_flushes();
        w.lose_from_now(MessageType::proposal, A, B);
        w.create(A, s, "/alone");
        w.flow();
        REQUIRE(w.last(C) == Zxid(1, 5));
        REQUIRE(w[C].status().durable == Zxid(1, 4));
        w.crash(A);
        w.lose_all();
        w.no_rules();
        bool voted = false;
        for (int released = 0; released < records; released++) {
            w.run_until([&] { return w.disk(C).flushed() > w.disk(C).durable(); }, seconds(2));
            if (w.disk(C).flushed() > w.disk(C).durable()) w.release_some(C, 1);
            w.run(milliseconds(100));
            if (w.leads(B) && !voted) voted = w.write(B, w.open(B), "/later");
        }
        w.crash(C);
        w.start(C);
        REQUIRE(in_step(w, {B, C}));
        CHECK_FALSE((w[C].log().contains(Zxid(1, 5)) && w[B].log().contains(Zxid(2, 1))));
        CHECK(w.verify() == "");
    }
}

// 1. F2 is down while "foo" is written, 2. then F1 while "bar" is. 3. F1 gets a DIFF, which goes
// into its tree and its log, but not into the list from which it would serve others. 4. The leader
// stops, F1 leads. 5. F2 is brought up from that list, and lacks "bar". Violated: agreement.
TEST_CASE("ZooKeeper A9 (ZOOKEEPER-4925): what a leader once got by a DIFF it hands on whole") {
    constexpr PeerId leader{5}, f1{4}, f2{1};
    WorldOptions options;
    options.voters = 5;
    World w(options);
    REQUIRE(bring_up(w, w.ids()));
    REQUIRE(w.leads(leader));
    const SessionId s = w.open(leader);
    const auto write_ten = [&](const std::string& name) {
        for (int i = 0; i < 10; i++) REQUIRE(w.write(leader, s, name + std::to_string(i)));
    };
    w.crash(f2);
    write_ten("/foo");
    w.crash(f1);
    write_ten("/bar");
    w.start(f1);
    REQUIRE(in_step(w, {leader, f1, PeerId{3}, PeerId{2}}));
    CHECK(w[f1].counters().snapshots_installed == 0);
    w.crash(leader);
    REQUIRE(w.run_until([&] { return w.leads(f1); }));
    w.start(f2);
    REQUIRE(in_step(w, {f1, f2, PeerId{3}, PeerId{2}}));
    CHECK(w[f2].counters().snapshots_installed == 0);
    for (const char* const path : {"/foo0", "/foo9", "/bar0", "/bar9"}) CHECK(w.has(f2, path));
    CHECK(w.verify() == "");
}

// 1. C's disk fails for a moment: 1.5 and 1.6 are not logged. 2. The others commit them; COMMIT
// reaches C, which applies. 3. C goes LOOKING with memory ahead of its disk. 4. It reports 1.6 and
// gets an empty DIFF. 5. After a restart 1.5 and 1.6 are gone under a higher zxid. 6. It may lead.
// Violated: committed durability, process consistency.
TEST_CASE("ZooKeeper A10 (ZOOKEEPER-4882): memory is never ahead of the disk") {
    World w;
    const SessionId s = three(w);
    SUBCASE("a follower") {
        w.disk(C).hold_flushes();
        REQUIRE(w.write(A, s, "/b"));
        REQUIRE(w.write(A, s, "/c"));
        w.run(milliseconds(200));
        CHECK(w[C].status().committed == Zxid(1, 6));
        CHECK(w[C].status().applied == Zxid(1, 4));
        w.isolate(C);
        w.lose_on_cut_links();
        REQUIRE(w.run_until([&] { return w[C].status().role == Role::looking; }));
        w.heal();
        w.hold(MessageType::notification, C, A);
        REQUIRE(w.run_until([&] { return w.count(MessageType::notification, C, A) > 0; }));
        CHECK(w.first(MessageType::notification, C, A)->message().zxid == Zxid(1, 4));
        w.crash(C);
        w.start(C);
        CHECK(w.last(C) == Zxid(1, 4));
        w.crash(A);
        CHECK(w.run_until([&] { return w.leads(B); }));  // C would be without what is committed
    }
    SUBCASE("the leader: its followers commit what it has not written") {
        w.disk(A).hold_flushes();
        const CallPtr call = w.create(A, s, "/b");
        w.run(milliseconds(200));
        CHECK(w.has(B, "/b"));
        CHECK(w[A].status().committed == Zxid(1, 5));
        CHECK_FALSE(w.has(A, "/b"));
        CHECK_FALSE(call->done);
        w.crash(A);
        w.start(A);
        CHECK(w.last(A) == Zxid(1, 4));
        CHECK(w.run_until([&] { return w.serves(A); }));
        CHECK(w.run_until([&] { return w.has(A, "/b"); }));
    }
    CHECK(w.verify() == "");
}

// A disk that does fail ends its replica, and nobody else.
TEST_CASE("ZooKeeper A10 (ZOOKEEPER-4882): a failed disk stops the replica") {
    World w;
    const SessionId s = three(w);
    w.ledger.allow_failure(C);
    w.disk(C).fail();
    REQUIRE(w.write(A, s, "/b"));
    w.run(milliseconds(200));
    CHECK(w[C].status().role == Role::failed);
    CHECK(w.write(A, s, "/c"));
    CHECK(in_step(w, {A, B}));
    CHECK(w.objections() == "");
}

// 1. The leader streams a snapshot and crashes before NEWLEADER. 2. The learner has it in memory,
// nothing on disk. 3. It says so to the next leader, and gets and logs what comes after. 4. It
// restarts: what was before is gone. Violated: committed durability. Here the disk makes nothing
// durable from the snapshot on; then C crashes with so many records of it.
TEST_CASE("ZooKeeper A11 (ZOOKEEPER-3642): a snapshot in memory alone is reported to nobody") {
    for (std::size_t survivors = 0; survivors <= 4; survivors++) {
        CAPTURE(survivors);
        World w(often());
        const SessionId s = three(w);
        leave_behind(w, s);
        w.hold(MessageType::chunk, A, C);
        w.hold(MessageType::new_leader, A, C);
        w.start(C);
        REQUIRE(w.run_until([&] { return w.count(MessageType::chunk, A, C) > 0; }));
        const Zxid had = w[C].status().durable;
        w.disk(C).hold_flushes();
        w.hold(MessageType::ack_epoch, C, B);
        REQUIRE(w.deliver(MessageType::chunk, A, C));
        REQUIRE(w[C].counters().snapshots_installed == 1);
        w.crash(A);
        w.lose_all();
        w.run(seconds(3));
        CHECK_FALSE(w.serves(B));  // C's word would be needed
        CHECK(w.count(MessageType::ack_epoch, C, B) == 0);
        CHECK(w[C].status().durable <= had);
        w.crash(C, survivors);
        w.no_rules();
        w.start(C);
        CHECK((w.last(C) == had || w[C].log().base() > had));
        REQUIRE(in_step(w, {B, C}));
        w.crash(C);
        w.start(C);
        CHECK(in_step(w, {B, C}));
        CHECK(w.has(C, "/n0"));
        CHECK(w.verify() == "");
    }
}

#ifndef COORD_NO_FILES

// 1. The learner writes the snapshot to the page cache, acknowledges, logs more. 2. The power goes:
// there is a log, and nothing under it. Violated: committed durability. Here B and C are all that
// is left afterwards, so that C's word counts.
TEST_CASE("ZooKeeper A12 (ZOOKEEPER-2872): a snapshot is synced, and its name, before it counts") {
    Disks disks;
    World w(disks.options());
    const SessionId s = three(w);
    leave_behind(w, s);
    w.start(C);
    REQUIRE(in_step(w, {A, B, C}));
    REQUIRE(w[C].counters().snapshots_installed == 1);
    w.crash(B);
    REQUIRE(w.write(A, s, "/later"));  // A and C have it
    cut_power(w, disks, C);
    w.crash(A);
    w.lose_all();
    w.start(C), w.start(B);
    CHECK(std::string(w[C].status().damage).empty());
    REQUIRE(in_step(w, {B, C}));
    CHECK(w.has(B, "/later"));
    CHECK(w.has(C, "/n0"));
    CHECK(w.verify() == "");
}

#endif

// 1. The leader streams a snapshot while it goes on with z1 to z3. 2. NEWLEADER was queued before
// them. 3. The learner stores what it has: a part of z1 to z3, under the older label. 4. It
// crashes; an epoch change drops z1 to z3, and it keeps them. Violated: agreement. Here the
// snapshot is of its zxid exactly. With C's word for them z1 to z3 are committed, else the next
// epoch has never seen them; C crashes with so many records.
TEST_CASE("ZooKeeper A13 (ZOOKEEPER-3104): writes during a transfer are not in the snapshot") {
    for (std::size_t survivors = 0; survivors <= 9; survivors++) {
        const bool has_them = survivors >= 5;
        CAPTURE(survivors);
        World w(often(1024));
        const SessionId s = three(w);
        leave_behind(w, s);
        w.hold(MessageType::chunk, A, C);
        w.hold(MessageType::new_leader, A, C);
        if (!has_them) w.hold(MessageType::proposal, A, C);
        w.start(C);
        w.lose_from_now(MessageType::proposal, A, B);
        std::vector<CallPtr> calls;
        for (int z = 0; w[C].counters().snapshots_installed == 0; z++) {
            REQUIRE(w.run_until([&] { return w.count(MessageType::chunk, A, C) > 0; }));
            if (z < 3) calls.push_back(w.create(A, s, "/z" + std::to_string(z)));
            w.disk(C).hold_flushes();
            w.deliver(MessageType::chunk, A, C);
            w.lose(MessageType::chunk, A, C);
        }
        REQUIRE(calls.size() == 3);
        CHECK_FALSE(w.has(C, "/z0"));
        w.rule(paper::Fate::deliver, MessageType::new_leader, A, C);
        if (has_them) w.disk(C).stop_holding();
        if (has_them) REQUIRE(w.run_until([&] { return calls[2]->done; }));
        w.crash(A);
        w.crash(C, survivors % 5);
        w.lose_all(), w.no_rules();
        w.start(C);
        REQUIRE(in_step(w, {B, C}));
        for (const PeerId id : {B, C}) CHECK(w.has(id, "/z2") == has_them);
        CHECK(w.verify() == "");
    }
}

// 1. The leader sends a DIFF up to X. 2. The follower takes itself to be at X at once. 3. The link
// breaks while the proposals are read. 4. It comes back, says X, and gets an empty DIFF: the
// deletes of ephemeral nodes among them never arrive. Violated: agreement, ephemeral owner.
TEST_CASE("ZooKeeper A14 (ZOOKEEPER-2355): a DIFF that breaks off is not taken for whole") {
    World w;
    const SessionId s = three(w);
    const SessionId dies = w.open(A);
    const CallPtr node = w.ask(Request::Kind::create, A, dies, "/e", {}, CreateMode::ephemeral);
    REQUIRE(w.run_until([&] { return node->done; }));
    REQUIRE(in_step(w, {A, B, C}));
    REQUIRE(w.has(C, "/e"));
    const Zxid had = w.last(C);
    w.crash(C);
    REQUIRE(w.write(A, s, "/b"));
    const CallPtr closed = w.ask(Request::Kind::close, A, dies, "");
    REQUIRE(w.run_until([&] { return closed->done; }));
    CHECK_FALSE(w.has(A, "/e"));
    w.hold(MessageType::proposal, A, C);
    w.start(C);
    REQUIRE(w.run_until([&] { return w.count(MessageType::proposal, A, C) > 0; }));
    w.lose(MessageType::proposal, A, C);
    w.cut(A, C);
    w.cut(B, C);
    w.lose_on_cut_links();
    REQUIRE(w.run_until([&] { return w[C].status().role == Role::looking; }));
    w.no_rules();
    w.hold(MessageType::ack_epoch, C, A);
    w.heal();
    REQUIRE(w.run_until([&] { return w.count(MessageType::ack_epoch, C, A) > 0; }));
    CHECK(w.first(MessageType::ack_epoch, C, A)->message().zxid == had);
    w.no_rules();
    REQUIRE(in_step(w, {A, B, C}));
    CHECK_FALSE(w.has(C, "/e"));
    w.ledger.forget_promise("/e");
    CHECK(w.verify() == "");
}

// 1. A logs 1.5 alone; all crash. 2. B and C lead epoch 2 from 1.4 and commit 2.1. 3. A joins with
// 1.5, which lies between the ends of their history and is not in it: a plain DIFF was sent.
// Violated: agreement.
TEST_CASE("ZooKeeper A15 (ZOOKEEPER-1154, 1156): a zxid has to be found, not only to lie between") {
    World w;
    const SessionId s = three(w);
    w.lose_from_now(MessageType::proposal, A, anybody);
    w.create(A, s, "/alone");
    REQUIRE(w[A].status().durable == Zxid(1, 5));
    w.crash_all();
    w.no_rules();
    REQUIRE(bring_up(w, {B, C}));
    REQUIRE(w.write(B, w.open(B), "/b"));
    w.hold(MessageType::trunc, B, A);
    w.hold(MessageType::diff, B, A);
    w.start(A);
    REQUIRE(w.run_until([&] {
        return w.count(MessageType::trunc, B, A) + w.count(MessageType::diff, B, A) > 0;
    }));
    REQUIRE(w.count(MessageType::diff, B, A) == 0);
    CHECK(w.first(MessageType::trunc, B, A)->message().zxid == Zxid(1, 4));
    w.no_rules();
    REQUIRE(in_step(w, {A, B, C}));
    CHECK_FALSE(w[A].log().contains(Zxid(1, 5)));
    CHECK_FALSE(w.has(A, "/alone"));
    CHECK(w.verify() == "");
}

#ifndef COORD_NO_FILES

// The file was cut under a writer that went on where it had been: zeros in between, which a reader
// took for the end. Violated: committed durability. Here a log is cut back to each place, goes on,
// and is opened again; its segments are small, or one.
TEST_CASE("ZooKeeper A16 (ZOOKEEPER-1489): what is appended after a truncation is there") {
    for (const std::uint64_t segment_bytes : {512u, 8192u}) {
        for (std::uint64_t kept = 0; kept <= 8; kept++) {
            for (const bool is_flushed : {false, true}) {
                CAPTURE(kept);
                Files disk;
                const auto open = [&](auto use) {
                    coord::FileStorage storage(paper::options_on(disk, segment_bytes));
                    coord::Log log(storage);
                    REQUIRE(log.open({7, 5}) == Errc::ok);
                    use(log);
                };
                Zxid last;
                open([&](coord::Log& log) {
                    for (std::uint64_t i = 1; i <= 8; i++) append_to(log, Zxid(1, i));
                    REQUIRE(log.flush() == Errc::ok);
                    REQUIRE(log.truncate(kept == 0 ? Zxid{} : Zxid(1, kept)) == Errc::ok);
                    if (is_flushed) REQUIRE(log.flush() == Errc::ok);
                    for (std::uint64_t i = 1; i <= 3; i++) append_to(log, Zxid(2, i));
                    REQUIRE(log.flush() == Errc::ok);
                    last = log.last().zxid;
                });
                disk.cut_power(std::vector<bool>(disk.pending(), false));
                open([&](coord::Log& log) {
                    CHECK(log.last().zxid == last);
                    CHECK(log.size() == kept + 3);
                    for (std::uint64_t i = 1; i <= kept; i++) CHECK(log.contains(Zxid(1, i)));
                    CHECK_FALSE(log.contains(Zxid(1, kept + 1)));
                });
            }
        }
    }
}

// 1. A has an uncommitted tail and no space left. 2. TRUNC fails, which was swallowed; A goes on as
// a follower with what nobody else has. Violated: agreement. Here A's segment is filled up to the
// last record that fits, of several lengths, so that there is room for the truncation or not.
TEST_CASE("ZooKeeper A17 (ZOOKEEPER-3701): a TRUNC that finds no space does not go on without it") {
    std::size_t waits = 0, cut = 0;
    for (std::size_t length = 4; length < 120; length += 4) {
        CAPTURE(length);
        Disks disks;
        World w(disks.options());
        const SessionId s = three(w);
        w.isolate(A);
        w.lose_on_cut_links();
        w.create(A, s, "/tail");
        disks[A].capacity = disks.used(A);
        for (Zxid last; last != w.last(A);) {  // removes of nothing, which take space in the log
            last = w.last(A);
            w.ask(Request::Kind::remove, A, s, "/" + Bytes(length, 'n'));
            w.poll(A);
        }
        const Zxid tail = w.last(A);
        REQUIRE(tail > Zxid(1, 5));
        REQUIRE(w.run_until([&] { return w.leads(B) && w.serves(C); }));
        REQUIRE(w.write(B, w.open(B), "/b"));
        w.heal();
        w.run(seconds(2));
        const bool is_cut = !w[A].log().contains(tail);
        (is_cut ? cut : waits) += 1;
        CHECK(w[A].status().full);
        CHECK((is_cut || !w.serves(A)));
        CHECK_FALSE(w.has(A, "/tail"));
        if (length % 8 == 0) w.crash(A), w.start(A);
        disks[A].capacity = UINT64_MAX;
        w.run(seconds(10));  // an idle storage looks for space now and then
        CHECK(w.serves(A));
        CHECK_FALSE(w[A].status().full);
        CHECK(w.verify() == "");
        CHECK_FALSE(w[A].log().contains(tail));
    }
    CHECK(waits > 2);
    CHECK(cut + waits == 29);
}

#endif

// A disk in memory that has no space for records of one kind, and for everything else. A snapshot
// that takes the place of a history counts as a base.
class NoSpaceFor final : public support::Forwarding {
public:
    NoSpaceFor(coord::RecordKind kind, coord::Storage& disk, const bool& is_full)
        : Forwarding(disk), kind_(kind), is_full_(is_full) {}
    Errc append(BytesView record) override {
        const bool is_of_it = record[8] == static_cast<char>(kind_);
        return is_full_ && is_of_it ? Errc::storage_full : inner_.append(record);
    }
    Errc end_snapshot(coord::Sequence first_needed, bool replaces) override {
        const bool is_of_it = replaces && kind_ == coord::RecordKind::base;
        if (is_full_ && is_of_it) return Errc::storage_full;
        return inner_.end_snapshot(first_needed, replaces);
    }

private:
    const coord::RecordKind kind_;
    const bool& is_full_;
};

TEST_CASE("ZooKeeper A17 (ZOOKEEPER-3701): a TRUNC that finds no space, though all else does") {
    coord::MemoryStorage disks[3];
    bool is_full = false;
    WorldOptions options;
    options.storage = [&](PeerId id) -> std::unique_ptr<coord::Storage> {
        return std::make_unique<NoSpaceFor>(coord::RecordKind::truncate, disks[id.value - 1],
                                            is_full);
    };
    World w(options);
    const SessionId s = three(w);
    w.isolate(A);
    w.lose_on_cut_links();
    w.create(A, s, "/tail");
    REQUIRE(w.run_until([&] { return w.leads(B) && w.serves(C); }));
    REQUIRE(w.write(B, w.open(B), "/b"));
    is_full = true;
    w.heal();
    w.run(seconds(2));
    CHECK_FALSE(w.serves(A));
    CHECK(w[A].status().epoch == 1);
    w.crash(A);
    w.start(A);
    CHECK(w[A].log().contains(Zxid(1, 5)));  // as it was: nothing of epoch 2 came behind it
    CHECK(w.last(A) == Zxid(1, 5));
    w.run(seconds(1));
    is_full = false;
    CHECK(w.run_until([&] { return w.serves(A); }));
    CHECK(w.verify() == "");
    CHECK_FALSE(w.has(A, "/tail"));
}

// A learner waits for the space of its epoch; a leader that did would keep the others from theirs.
// So it makes way, and stands for nothing for a while: one of the others leads.
TEST_CASE("faults D13: an epoch that finds no space: the one that was to lead makes way") {
    coord::MemoryStorage disks[3];
    bool is_full = false;
    const bool never = false;
    WorldOptions options;
    options.storage = [&](PeerId id) -> std::unique_ptr<coord::Storage> {
        return std::make_unique<NoSpaceFor>(coord::RecordKind::accepted, disks[id.value - 1],
                                            id == A ? is_full : never);
    };
    World w(options);
    three(w);
    w.crash_all();
    is_full = true;
    w.start_all();
    REQUIRE(w.run_until([&] { return w.leads(B) && w.serves(C); }));
    CHECK(w.write(C, w.open(C), "/after"));
    w.run(seconds(2));  // to follow, too, it waits
    CHECK_FALSE(w.serves(A));
    CHECK(w.leads(B));
    CHECK(w[A].status().accepted_epoch == 1);
    is_full = false;
    CHECK(w.run_until([&] { return w.serves(A); }));
    CHECK(w.verify() == "");
}

// All of a leader's snapshot has come, could be read again, and cannot be put in place.
TEST_CASE("faults S4 D13: no space for the end of a snapshot that is installed, until there is") {
    coord::MemoryStorage disks[3];
    bool is_full = false;
    WorldOptions options = often();
    options.storage = [&](PeerId id) -> std::unique_ptr<coord::Storage> {
        return std::make_unique<NoSpaceFor>(coord::RecordKind::base, disks[id.value - 1], is_full);
    };
    World w(options);
    const SessionId s = three(w);
    w.crash(C);
    w.run(seconds(1));
    for (int i = 0; i < 40; i++) REQUIRE(w.write(A, s, "/n" + std::to_string(i)));
    is_full = true;
    w.start(C);
    w.run(seconds(2));
    CHECK_FALSE(w.serves(C));
    CHECK(w[C].status().full);
    CHECK(w[C].counters().snapshots_given_up > 1);
    is_full = false;
    CHECK(w.run_until([&] { return w.serves(C); }, seconds(15)));
    CHECK(w[C].counters().snapshots_installed == 1);
    CHECK(w.verify() == "");
}

// There is nobody to make way for.
TEST_CASE("faults D13: an epoch that finds no space: a replica alone ends by name") {
    using Kind = coord::RecordKind;
    for (const Kind kind : {Kind::accepted, Kind::current, Kind::entry}) {
        CAPTURE(static_cast<int>(kind));
        coord::MemoryStorage disk;
        const bool is_full = true;
        NoSpaceFor storage(kind, disk, is_full);
        coord::Replica replica(coord::ReplicaOptions{}, storage);
        for (int ms = 0; ms < 1000; ms++) replica.poll(coord::Time{ms * 1000000});
        CHECK(replica.status().role == Role::failed);
        CHECK(std::string(replica.status().reason) == "the storage is full");
        CHECK(disk.appended() < 10);
    }
}

// All votes are equal then, whoever stands aside: the same one wins again. Each time takes an epoch
// and a record of each voter: ten thousand a second, and in half an hour there were none left.
TEST_CASE("faults D13: no space for what founds an ensemble: no more than an election in a while") {
    coord::MemoryStorage disks[3];
    bool is_full = true;
    const bool never = false;
    WorldOptions options;
    options.storage = [&](PeerId id) -> std::unique_ptr<coord::Storage> {
        const bool& full = id == A ? is_full : never;
        return std::make_unique<NoSpaceFor>(coord::RecordKind::entry, disks[id.value - 1], full);
    };
    World w(options);
    w.start_all();
    w.run(seconds(10));
    CHECK(w.leader() == anybody);
    CHECK(w[A].counters().elections < 40);
    CHECK(w[B].status().accepted_epoch < 40);
    is_full = false;
    CHECK(w.run_until([&] { return w.serves(A) && w.serves(B) && w.serves(C); }, seconds(10)));
    CHECK(w.write(A, w.open(A), "/after"));
    CHECK(w.verify() == "");
}

// Nobody can lead then, and nobody ends over it. When there is space, all is as before.
TEST_CASE("faults D13: no space for an epoch at any of three: they wait, and go on when there is") {
    for (const auto kind : {coord::RecordKind::accepted, coord::RecordKind::current}) {
        CAPTURE(static_cast<int>(kind));
        coord::MemoryStorage disks[3];
        bool is_full = false;
        WorldOptions options;
        options.storage = [&](PeerId id) -> std::unique_ptr<coord::Storage> {
            return std::make_unique<NoSpaceFor>(kind, disks[id.value - 1], is_full);
        };
        World w(options);
        three(w);
        is_full = true;
        w.isolate(A);
        w.lose_on_cut_links();
        w.run(seconds(3));
        w.heal();
        w.run(seconds(20));
        for (const PeerId id : w.ids()) CHECK_FALSE(w.serves(id));
        CHECK(w[A].counters().elections < 100);  // no more than one in Timing::silence
        is_full = false;
        CHECK(w.run_until([&] { return w.serves(A) && w.serves(B) && w.serves(C); }, seconds(30)));
        CHECK(w.has(A, "/a"));
        CHECK(w.write(A, w.open(A), "/after"));
        CHECK(w.verify() == "");
    }
}

// The leader sent records of its disk up to x, and then those that it had in memory, from y > x +
// 1. Violated: agreement. Here a learner is behind by each number of writes in turn, before, at and
// after the place where the leader's log begins.
TEST_CASE("ZooKeeper A18 (ZOOKEEPER-2418): a DIFF that begins at each place near the log's start") {
    std::uint64_t by_snapshot = 0;
    for (int had = 0; had <= 30; had++) {
        CAPTURE(had);
        World w(often());
        const SessionId s = three(w);
        for (int i = 0; i < 30; i++) {
            if (i == had) w.crash(C), w.run(seconds(1));
            REQUIRE(w.write(A, s, "/n" + std::to_string(i)));
        }
        if (had == 30) w.crash(C);
        w.start(C);
        REQUIRE(in_step(w, {A, B, C}));
        by_snapshot += w[C].counters().snapshots_installed;
        CHECK(w.has(C, "/n29"));
        CHECK(w.verify() == "");
    }
    CHECK(by_snapshot > 15);
    CHECK(by_snapshot < 30);
}

// 1. A, once the leader, has 1.5 in its log, uncommitted. 2. It restarts, wins a round, takes its
// start-up snapshot with 1.5 in it, and finds no quorum. 3. B and C lead epoch 2 without 1.5. 4. A
// gets TRUNC: its log is cut, the snapshot has 1.5 all the same. Violated: agreement. Here A takes
// a snapshot whenever it may.
TEST_CASE("ZooKeeper A19 (ZOOKEEPER-1549): no snapshot has what is not committed") {
    WorldOptions options;
    options.tune = [](coord::ReplicaOptions& replica) {
        replica.snapshot_every_entries = 1, replica.log_entries_kept = 0;
    };
    World w(options);
    const SessionId s = three(w);
    w.lose_from_now(MessageType::proposal, A, anybody);
    w.create(A, s, "/alone");
    REQUIRE(w[A].status().durable == Zxid(1, 5));
    w.crash(A);
    w.lose_all(), w.no_rules();
    w.isolate(A);
    w.start(A);
    w.run(seconds(5));
    CHECK(w.last(A) == Zxid(1, 5));
    CHECK(w[A].log().snapshot_position().zxid <= Zxid(1, 4));
    CHECK_FALSE(w.has(A, "/alone"));
    REQUIRE(w.leads(B));
    REQUIRE(w.write(B, w.open(B), "/b"));
    w.heal();
    REQUIRE(in_step(w, {A, B, C}));
    w.crash(A);
    w.start(A);
    CHECK_FALSE(w[A].log().contains(Zxid(1, 5)));
    CHECK_FALSE(w.has(A, "/alone"));
    CHECK(w.verify() == "");
    CHECK_FALSE(w.has(A, "/alone"));
}

// 1. A loses the quorum and serves reads. 2. A session ends there, which made an entry of its own
// in the history. 3. The next joiner is cut back to that. Violated: committed durability. There is
// no such mode here; a replica without a quorum reads, and its history does not change.
TEST_CASE("ZooKeeper A20 (ZOOKEEPER-3526): without a quorum nothing gets into a history") {
    World w;
    const SessionId s = three(w);
    const SessionId ends = w.open(A), expires = w.open(A, seconds(1));
    REQUIRE(in_step(w, {A, B, C}));
    const Zxid last = w.last(A);
    w.crash(B), w.crash(C);
    w.lose_all();
    w.run(seconds(2));
    REQUIRE_FALSE(w.serves(A));
    const CallPtr read = w.ask(Request::Kind::get, A, s, "/a");
    const CallPtr close = w.ask(Request::Kind::close, A, ends, "");
    w.run(seconds(30));
    CHECK(read->done);
    CHECK_FALSE(close->done);
    CHECK(w.last(A) == last);
    CHECK(w[A].status().applied == last);
    CHECK(w[A].machine().find_session(expires) != nullptr);
    w.start(B);
    REQUIRE(in_step(w, {A, B}));
    w.start(C);
    REQUIRE(in_step(w, {A, B, C}));
    CHECK(w.run_until([&] { return close->done; }));
    CHECK(w.has(C, "/a"));
    CHECK(w.verify() == "");
    CHECK(w.run_until([&] { return w[C].machine().find_session(expires) == nullptr; }));
}

// A fresh server joined while the leader changed; the leader took zero for a real bound of its log,
// and sent a part of the data as a DIFF. Violated: agreement. Here a voter's disk is wiped; it gets
// so many chunks of a snapshot, or of a log that still begins at the first entry nothing yet, when
// its leader dies.
TEST_CASE("ZooKeeper A21 (ZOOKEEPER-4352): who comes with nothing gets all, whoever leads") {
    for (const bool is_short : {false, true}) {
        for (int chunks = 0; chunks <= 8; chunks += 2) {
            CAPTURE(is_short);
            CAPTURE(chunks);
            World w(is_short ? WorldOptions{} : often(1024));
            const SessionId s = three(w);
            leave_behind(w, s);
            w.wipe(C);
            w.hold(MessageType::chunk, A, C);
            w.hold(MessageType::proposal, A, C);
            w.start(C);
            for (int i = 0; i < chunks; i++) {
                w.run_until([&] { return w.count(MessageType::chunk, A, C) > 0; }, seconds(1));
                w.deliver(MessageType::chunk, A, C);
                w.lose(MessageType::chunk, A, C);
            }
            w.run(milliseconds(200));
            w.crash(A);
            w.lose_all(), w.no_rules();
            w.run(seconds(3));
            CHECK_FALSE(w.serves(C));  // it is not admitted, and B alone is no quorum
            w.start(A);
            REQUIRE(in_step(w, {A, B, C}));
            CHECK(w.has(C, "/n0"));
            CHECK(w.verify() == "");
        }
    }
}

// Five servers; an ephemeral node is being created, and the leader dies over one of the messages
// about it. After the election it stayed on some followers and not on the leader. Violated:
// agreement, ephemeral owner. Here the leader dies after each number of messages of the round.
TEST_CASE("ZooKeeper A22 (ZOOKEEPER-5010): an ephemeral in flight when the leader dies") {
    constexpr PeerId leader{5}, owner{4};
    bool is_through = false;
    std::size_t messages = 0;
    for (; !is_through; messages++) {
        CAPTURE(messages);
        WorldOptions options;
        options.voters = 5;
        World w(options);
        REQUIRE(bring_up(w, w.ids()));
        REQUIRE(w.leads(leader));
        const SessionId s = w.open(owner);
        REQUIRE(in_step(w, w.ids()));
        w.run(milliseconds(10)), w.flow();
        const CallPtr node =
            w.ask(Request::Kind::create, owner, s, "/e", {}, CreateMode::ephemeral);
        w.poll(owner);
        for (std::size_t i = 0; i < messages && !w.packets.empty(); i++) w.deliver_at(0);
        is_through = w.packets.empty();
        w.crash(leader);
        if (messages % 2 == 1) w.lose_all();
        const std::vector<PeerId> rest{PeerId{4}, PeerId{3}, PeerId{2}, PeerId{1}};
        REQUIRE(in_step(w, rest));
        REQUIRE(w.run_until([&] { return node->done; }));
        CHECK(node->error == Errc::ok);
        REQUIRE(bring_up(w, w.ids()));
        for (const PeerId id : w.ids()) {
            REQUIRE(w.has(id, "/e"));
            CHECK(w[id].tree().find("/e")->stat.ephemeral_owner == s);
        }
        const CallPtr close = w.ask(Request::Kind::close, owner, s, "");
        REQUIRE(w.run_until([&] { return close->done; }));
        w.ledger.forget_promise("/e");
        CHECK(w.verify() == "");
        for (const PeerId id : w.ids()) CHECK_FALSE(w.has(id, "/e"));
    }
    CHECK(messages > 10);
}

// The first versions of Zab 1.0: what happened while a learner was brought up to date bypassed its
// table of sessions, or was not kept; after a restart there were ephemerals whose sessions nobody
// expired, and writes were missing. 1. C gets a DIFF, or a snapshot; UPTODATE is slow. 2. A session
// is opened, with an ephemeral, and there are writes. 3. All crash; B and C go on. Violated:
// ephemeral owner, committed durability.
TEST_CASE("ZooKeeper A27 (ZOOKEEPER-1367, 1551, 1319): sessions and writes while one catches up") {
    for (const bool is_by_snapshot : {false, true}) {
        CAPTURE(is_by_snapshot);
        World w(is_by_snapshot ? often() : WorldOptions());
        const SessionId s = three(w);
        leave_behind(w, s);
        w.hold(MessageType::up_to_date, A, C);
        w.start(C);
        REQUIRE(w.run_until([&] { return w.count(MessageType::up_to_date, A, C) > 0; }));
        CHECK((w[C].counters().snapshots_installed > 0) == is_by_snapshot);
        const SessionId brief = w.open(A, seconds(20));
        const CallPtr node = w.ask(Request::Kind::create, A, brief, "/e", {},
                                   CreateMode::ephemeral);
        REQUIRE(w.run_until([&] { return node->done; }));
        REQUIRE(w.write(A, s, "/b"));
        CHECK_FALSE(w.serves(C));
        w.no_rules();
        REQUIRE(in_step(w, {A, B, C}));
        CHECK(w[C].machine().find_session(brief) != nullptr);
        w.crash_all();
        REQUIRE(bring_up(w, {B, C}));
        CHECK(w.has(C, "/b"));
        CHECK(w.has(C, "/e"));
        w.ledger.forget_promise("/e");
        CHECK(w.run_until([&] { return !w.has(B, "/e") && !w.has(C, "/e"); }, seconds(30)));
        CHECK(w[C].machine().find_session(brief) == nullptr);
        CHECK(w.verify() == "");
    }
}

// The pipeline of a server: a commit that came at the wrong moment stayed in it until the next one,
// answers overtook one another, and what an old role had in it came out in the new one. Violated:
// liveness, order. 1. Single writes at a follower, with nothing after them; their messages come
// twice, and late. 2. Many in a row, and the leader dies among them.
TEST_CASE("ZooKeeper A28 (ZOOKEEPER-3598, 4537, 1863): no answer waits for another commit") {
    World w;
    three(w);
    const SessionId own = w.open(C);
    REQUIRE(in_step(w, {A, B, C}));
    for (int i = 0; i < 40; i++) {
        CAPTURE(i);
        const CallPtr call = w.create(C, own, "/alone" + std::to_string(i));
        const MessageType type = i % 2 == 0 ? MessageType::proposal : MessageType::commit;
        if (i % 4 < 2) {  // one overtakes the other
            w.hold(type, A, C);
            w.run(milliseconds(2));
            w.no_rules();
        } else {
            REQUIRE(w.run_until([&] { return w.first(type, A, C) != nullptr; }));
            const Packet copy = *w.first(type, A, C);
            w.flow();
            w.deliver_copy(copy);
        }
        w.flow();
        CHECK(w.run_until([&] { return call->done; }, milliseconds(50)));
        CHECK(call->error == Errc::ok);
    }
    std::vector<CallPtr> calls;
    for (int i = 0; i < 50; i++) {
        calls.push_back(w.ask(Request::Kind::create, C, own, "/row" + std::to_string(i)));
    }
    w.poll(C);
    int steps = 0;
    const auto are_in_order = [&] {
        bool is_done = true;
        for (const CallPtr& call : calls) {
            if (call->done && !is_done) return false;
            is_done = call->done;
        }
        return true;
    };
    CHECK(w.run_until([&] {
        if (steps++ == 4) w.crash(A);
        REQUIRE(are_in_order());
        return calls.back()->done;
    }));
    CHECK(steps > 4);
    for (const CallPtr& call : calls) CHECK(call->error == Errc::ok);
    CHECK(w.verify() == "");
}

#ifndef COORD_NO_FILES

// An ensemble on files, at rest, of which a test damages B's disk.
struct AtRest {
    Disks disks;
    World w;
    explicit AtRest(int writes) : w((disks.segment_bytes = 1024, disks.options())) {
        const SessionId s = three(w);
        for (int i = 0; i < writes; i++) REQUIRE(w.write(A, s, "/n" + std::to_string(i)));
        REQUIRE(in_step(w, {A, B, C}));
        w.crash_all();
        w.ledger.lost_its_disk(B);
    }
};

// A file in the middle of the log is deleted; what was left was replayed, without a look at whether
// it follows. Violated: committed durability. Here each segment in turn.
TEST_CASE("ZooKeeper A23: a file of the log is missing: not passed over, but learned again") {
    std::size_t damaged = 0;
    for (std::size_t i = 0;; i++) {
        CAPTURE(i);
        AtRest rest(40);
        const std::vector<std::string> segments = rest.disks.paths(B, "log.");
        REQUIRE(segments.size() >= 3);
        if (i == segments.size()) break;
        rest.disks[B].erase(segments[i]);
        rest.w.start_all();
        damaged += *rest.w[B].status().damage != 0;
        CHECK(rest.w.verify() == "");
        CHECK(rest.w.has(B, "/n0"));
    }
    CHECK(damaged >= 2);
}

// Records at the end of the logs of a quorum are torn, and only of those; the third has all.
// Whoever starts first: what is torn was never acknowledged, and a torn record in the middle is no
// end.
TEST_CASE("ZooKeeper A24: torn records at the ends of a quorum's logs") {
    for (int order = 0; order < 3; order++) {
        for (const std::size_t torn : {1u, 20u, 60u}) {
            CAPTURE(order);
            CAPTURE(torn);
            Disks disks;
            World w(disks.options());
            const SessionId s = three(w);
            for (const PeerId id : {B, C}) {
                w.ledger.allow_failure(id);
                disks[id].cut_before(disks[id].calls() + 2);  // it writes, and does not sync
            }
            const CallPtr call = w.create(A, s, "/torn");
            w.flow();
            CHECK_FALSE(call->done);
            w.crash(A);
            for (const PeerId id : {B, C}) {
                cut_power(w, disks, id, std::vector<bool>(disks[id].pending(), true));
                const std::string path = disks.paths(id, "log.").back();
                Bytes bytes = disks[id].contents(path);
                const std::size_t end = bytes.find_last_not_of('\0') + 1;
                bytes.replace(end - torn, torn, torn, '\0');
                disks[id].set_contents(path, bytes);
                w.ledger.forbid_failure(id);
            }
            w.lose_all();
            if (order == 0) w.start_all();
            if (order == 1) REQUIRE(bring_up(w, {B, C}));
            if (order == 2) REQUIRE(bring_up(w, {A, C}));
            for (const PeerId id : {B, C}) {
                if (w.is_up(id)) CHECK(std::string(w[id].status().damage).empty());
            }
            CHECK(w.verify() == "");
            CHECK(w.has(A, "/torn") == (order != 1));
        }
    }
}

// A server with a log and no snapshot started as an empty one, and took part; with the flag to
// trust it the log was not replayed at all. Here the log alone is as good as long as it begins with
// the first record; otherwise it is damage.
TEST_CASE("ZooKeeper A25 (ZOOKEEPER-2325, 3056, 3644, 3781): a log, and no snapshot of it") {
    for (const int writes : {12, 60}) {
        CAPTURE(writes);
        AtRest rest(writes);
        const std::vector<std::string> snapshots = rest.disks.paths(B, "snapshot.");
        REQUIRE(snapshots.size() >= (writes == 12 ? 1u : 3u));
        const bool is_whole = rest.disks[B].exists("data/log.0000000000000001");
        CHECK(is_whole == (writes == 12));
        for (const std::string& path : snapshots) rest.disks[B].erase(path);
        rest.w.start_all();
        CHECK(std::string(rest.w[B].status().damage).empty() == is_whole);
        CHECK(rest.w.verify() == "");
        CHECK(rest.w.has(B, "/n0"));
    }
}

// A crash between two of the epoch's files, a write of one that fails, a rename. Here B follows
// into a new epoch; each call of its disk fails, or the power is cut there and loses all or some.
// Its epochs never fall, and it starts again.
TEST_CASE("ZooKeeper A26 (ZOOKEEPER-1653, 2354, 2307, 4269): a fault at an epoch's record") {
    Disks disks;
    World before(disks.options());
    three(before);
    before.crash_all();
    coord::Rng rng(3);
    std::size_t count = 0;
    for (int fault = 0; fault < 4; fault++) {
        bool is_through = false;
        for (std::uint64_t k = 1; !is_through; k++) {
            CAPTURE(fault);
            CAPTURE(k);
            Disks own(disks);
            World w(own.options());
            w.ledger = before.ledger;
            w.ledger.allow_failure(B);
            w.start(B);
            if (fault < 2) own[B].cut_before(own[B].calls() + k);
            if (fault >= 2) own[B].fail(fault == 2 ? Files::Call::write : Files::Call::sync, k);
            w.start(A);
            w.run(milliseconds(400));
            is_through = w[B].status().role != Role::failed;
            count += is_through ? 0 : 1;
            w.crash(B);
            own[B].stop_failing();
            if (fault < 2) {
                cut_power(w, own, B, fault == 0 ? std::vector<bool>(own[B].pending(), false)
                                                : paper::some_of(own[B].pending(), rng));
            }
            w.ledger.forbid_failure(B);
            w.start(B);
            CHECK(std::string(w[B].status().damage).empty());
            REQUIRE(in_step(w, {A, B}));
            CHECK(w.verify() == "");
        }
    }
    CHECK(count > 8);
}

#endif  // COORD_NO_FILES

// -------------------------------------------------------------------------------------------------
// B: snapshots that are taken while transactions go on, and what a transaction is

// A state, and transactions as a log would hold them.
struct Life {
    coord::Machine machine{coord::Limits{}, 1};
    struct Nobody final : coord::ChangeSink {
        void on_created(BytesView, Zxid, BytesView) override {}
        void on_deleted(BytesView, Zxid, BytesView) override {}
        void on_data_changed(BytesView, Zxid, BytesView) override {}
        void on_children_changed(BytesView, Zxid, BytesView) override {}
    } nobody;
    std::map<SessionId, std::uint64_t> cxids;

    coord::Outcome apply(coord::OpCode op, SessionId session, BytesView body) {
        coord::Txn txn;
        txn.previous = machine.applied();
        txn.zxid = Zxid(1, txn.previous.counter() + 1);
        txn.time_ms = static_cast<std::int64_t>(txn.zxid.counter());
        txn.session = session, txn.op = op, txn.body = body;
        if (op != coord::OpCode::open_session) txn.cxid = ++cxids[session];
        const coord::Outcome* const outcome = machine.apply(txn, nobody);
        REQUIRE(outcome != nullptr);
        return *outcome;
    }
    SessionId open(std::uint64_t nonce) {
        Bytes body;
        coord::Writer(body).u64(nonce);
        coord::Writer(body).u32(5000);
        coord::Writer(body).u64(0), coord::Writer(body).u64(0);
        return apply(coord::OpCode::open_session, SessionId{}, body).session;
    }
    coord::Outcome create(SessionId s, BytesView path,
                          CreateMode mode = CreateMode::persistent) {
        Bytes body;
        coord::Writer out(body);
        out.bytes(path), out.bytes("data"), out.i32(static_cast<std::int32_t>(mode));
        return apply(coord::OpCode::create, s, body);
    }
    void remove(SessionId s, BytesView path) {
        Bytes body;
        coord::Writer out(body);
        out.bytes(path), out.i32(coord::any_version);
        CHECK(apply(coord::OpCode::remove, s, body).error == Errc::ok);
    }
    void set(SessionId s, BytesView path) {
        Bytes body;
        coord::Writer out(body);
        out.bytes(path), out.bytes("other"), out.i32(coord::any_version);
        CHECK(apply(coord::OpCode::set, s, body).error == Errc::ok);
    }
    void close(SessionId s) {
        Bytes body(1, '\0');
        CHECK(apply(coord::OpCode::close_session, s, body).error == Errc::ok);
    }
};

// What happens before a snapshot is begun, and, one by one, while it is written and after it.
using Deeds = std::vector<std::function<void(Life&)>>;

// Takes a snapshot in the smallest slices, with `meanwhile` spread over it from each slice on. It
// has to be of its zxid exactly, and with the same transactions after it the same state as the one
// that went on. RETURNS that state's restored twin, the last one.
std::shared_ptr<Life> expect_exact(const std::function<void(Life&)>& first,
                                   const Deeds& meanwhile) {
    std::shared_ptr<Life> restored;
    bool is_through = false;
    for (std::size_t from = 0; !is_through; from++) {
        CAPTURE(from);
        Life live;
        first(live);
        const std::uint64_t digest = live.machine.digest();
        const Zxid label = live.machine.applied();
        const auto cxids = live.cxids;
        Bytes state;
        std::size_t slice = 0, next = 0;
        live.machine.begin_save();
        do {
            if (slice >= from && next < meanwhile.size()) meanwhile[next++](live);
        } while (!live.machine.save_slice(1, state) && slice++ < 10000);
        is_through = next == 0;
        while (next < meanwhile.size()) meanwhile[next++](live);
        restored = std::make_shared<Life>();
        REQUIRE(restored->machine.load(state) == Errc::ok);
        CHECK(restored->machine.applied() == label);
        CHECK(restored->machine.digest() == digest);
        restored->cxids = cxids;
        for (const auto& deed : meanwhile) deed(*restored);
        CHECK(restored->machine.digest() == live.machine.digest());
        CHECK(support::sorted_records(support::save(restored->machine)) ==
              support::sorted_records(support::save(live.machine)));
        restored->machine.audit();
    }
    return restored;
}

constexpr SessionId s1{Zxid(1, 1).value}, s2{Zxid(1, 2).value};

void two_sessions(Life& life) {
    REQUIRE(life.open(1) == s1);
    REQUIRE(life.open(2) == s2);
}

// The parent is deleted later in the window: the replay of the create met a parent that was not
// there, and the server did not start. Violated: liveness.
TEST_CASE("ZooKeeper B1 (ZOOKEEPER-1573): the parent goes while the snapshot is written") {
    const std::shared_ptr<Life> life = expect_exact(
        [](Life& l) { two_sessions(l), l.create(s1, "/p"); },
        {[](Life& l) { CHECK(l.create(s1, "/p/c").error == Errc::ok); },
         [](Life& l) { l.remove(s1, "/p/c"); }, [](Life& l) { l.remove(s1, "/p"); }});
    CHECK_FALSE(life->machine.tree().contains("/p"));
}

// A node is deleted in the window: the replayed delete found nothing, and left the parent's pzxid
// as it was. Violated: a watch of its children missed that after a reconnect.
TEST_CASE("ZooKeeper B2 (ZOOKEEPER-3125): a delete while the snapshot is written, and its pzxid") {
    const std::shared_ptr<Life> life = expect_exact(
        [](Life& l) { two_sessions(l), l.create(s1, "/p"), l.create(s1, "/p/c"); },
        {[](Life& l) { l.remove(s1, "/p/c"); }});
    CHECK(life->machine.tree().find("/p")->stat.pzxid == Zxid(1, 5));
}

// The sessions were written after the label had moved on. Violated: ephemeral owner.
TEST_CASE("ZooKeeper B3 (ZOOKEEPER-3144): sessions come and go while the snapshot is written") {
    const std::shared_ptr<Life> life = expect_exact(
        [](Life& l) { two_sessions(l), l.create(s1, "/e", CreateMode::ephemeral); },
        {[](Life& l) { l.open(3); }, [](Life& l) { l.close(s1); },
         [](Life& l) { l.create(SessionId{Zxid(1, 4).value}, "/f", CreateMode::ephemeral); }});
    CHECK(life->machine.find_session(s1) == nullptr);
    CHECK_FALSE(life->machine.tree().contains("/e"));
    CHECK(life->machine.tree().contains("/f"));
}

// A close took whatever the session owned when it was replayed. Violated: agreement.
TEST_CASE("ZooKeeper B4 (ZOOKEEPER-3145): a close takes what the session owned at its zxid") {
    const std::shared_ptr<Life> life = expect_exact(
        [](Life& l) {
            two_sessions(l);
            for (const char* const path : {"/e1", "/e2"}) l.create(s1, path, CreateMode::ephemeral);
        },
        {[](Life& l) { l.remove(s2, "/e1"); },
         [](Life& l) { l.create(s2, "/e1", CreateMode::ephemeral); },
         [](Life& l) { l.create(s1, "/e3", CreateMode::ephemeral); }, [](Life& l) { l.close(s1); },
         [](Life& l) { l.create(s2, "/e2"); }});
    CHECK(life->machine.tree().find("/e1")->stat.ephemeral_owner == s2);
    CHECK(life->machine.tree().find("/e2")->stat.ephemeral_owner == SessionId{});
    CHECK_FALSE(life->machine.tree().contains("/e3"));
}

// The replayed create set the parent's cversion and pzxid back. Violated: numbers of sequential
// nodes repeat.
TEST_CASE("ZooKeeper B5 (ZOOKEEPER-3249): sequential nodes while the snapshot is written") {
    const auto next = [](Life& l) { l.create(s1, "/p/s", CreateMode::persistent_sequential); };
    const auto again = [](Life& l) { l.remove(s1, "/p/s0000000001"); };
    const std::shared_ptr<Life> life = expect_exact(
        [next](Life& l) { two_sessions(l), l.create(s1, "/p"), next(l); },
        {next, again, next, [](Life& l) { l.set(s1, "/p"); }});
    CHECK(life->create(s1, "/p/s", CreateMode::persistent_sequential).path == "/p/s0000000003");
}

// The label moved after the first part of a transaction of several. Violated: atomicity. Here it is
// the end of a session that changes many nodes at once; multis among the slices of a save are in
// 04_machine.cpp.
TEST_CASE("ZooKeeper B6 (ZOOKEEPER-3127): no snapshot is labelled in the midst of a transaction") {
    const std::shared_ptr<Life> life = expect_exact(
        [](Life& l) {
            two_sessions(l);
            for (char name = 'a'; name <= 'j'; name++) {
                l.create(s1, std::string("/") + name, CreateMode::ephemeral);
            }
        },
        {[](Life& l) { l.close(s1); }});
    for (char name = 'a'; name <= 'j'; name++) {
        CHECK_FALSE(life->machine.tree().contains(std::string("/") + name));
    }
}

// The zxid was that of a change that was not in the tree yet. Violated: agreement.
TEST_CASE("ZooKeeper B8 (ZOOKEEPER-1090): each state is that of its zxid, no more and no less") {
    const auto set = [](Life& l) { l.set(s1, "/p"); };
    expect_exact([](Life& l) { two_sessions(l), l.create(s1, "/p"), l.create(s1, "/q"); },
                 {set, [](Life& l) { l.remove(s1, "/q"); }, set,
                  [](Life& l) { l.create(s1, "/q"); }, set});
}

// A request that no client of its own would send was acknowledged by the leader and could not be
// read from the log. Violated: durability, liveness. Here every kind of request there is and is not
// comes to the leader; what it does not number changes nothing, and all can start again.
TEST_CASE("ZooKeeper B9 (ZOOKEEPER-2623): a request that is none is not logged") {
    World w;
    three(w);
    const SessionId s = w.open(B);
    w.hold(MessageType::request, B, A);
    w.create(B, s, "/b");
    const Packet like = *w.first(MessageType::request, B, A);
    w.no_rules();
    w.lose(MessageType::request, B, A);
    REQUIRE(in_step(w, {A, B, C}));
    for (int op = -2; op < 256; op++) {
        Bytes payload;
        coord::Writer writer(payload);
        writer.u64(s.value), writer.u64(1), writer.u64(0);
        writer.u8(static_cast<std::uint8_t>(op)), writer.bytes("not a body");
        Message message = like.message();
        message.payload = payload;
        Packet packet = like;
        packet.bytes.clear();
        coord::encode_message(message, packet.bytes);
        w.deliver_copy(packet);
    }
    w.flow();
    CHECK(w[A].leader_counters().requests_ignored >= 250);
    CHECK(w.run_until([&] { return w.has(A, "/b"); }));
    CHECK(w.verify() == "");
}

// A transaction larger than any message: the close of a session with very many nodes, which listed
// them all. No follower could read the proposal, no server could start. Violated: liveness, for
// ever. Here a message has 1024 bytes, the session 300 nodes with names of 100; a close does not
// list them.
TEST_CASE("ZooKeeper B11 (ZOOKEEPER-2101, 3496, 4306): a session's many nodes go in one close") {
    for (const bool expires : {false, true}) {
        World w(often(1024));
        const SessionId s = three(w);
        const SessionId owner = w.open(B, expires ? seconds(2) : seconds(3600));
        for (int i = 0; i < 300; i++) {
            const Bytes path = "/" + Bytes(100, 'n') + std::to_string(i);
            const CallPtr node =
                w.ask(Request::Kind::create, B, owner, path, {}, CreateMode::ephemeral);
            REQUIRE(w.run_until([&] { return node->done; }));
            REQUIRE(node->error == Errc::ok);
            w.ledger.forget_promise(path);
        }
        REQUIRE(w[A].status().nodes > 300);
        if (expires) {
            w.crash(B), w.start(B);
        } else {
            w.ask(Request::Kind::close, B, owner, "");
        }
        CHECK(w.run_until([&] { return w[A].machine().find_session(owner) == nullptr; }));
        CHECK(w[A].status().nodes < 10);
        REQUIRE(w.write(A, s, "/after"));
        CHECK(w.verify() == "");
    }
}

// A value that fits no message is refused before it is numbered, whichever replica it is asked of.
TEST_CASE("ZooKeeper B11 (ZOOKEEPER-2101): a write that fits no message is not logged") {
    World w(often(1024));
    const SessionId s = three(w);
    const SessionId remote = w.open(B);
    std::vector<std::size_t> sizes{500, 900, 1024, 4000};
    for (std::size_t size = 700; size < 800; size += 5) sizes.push_back(size);
    std::size_t most = 0, least = 4000;  // that found room, and that did not
    for (const std::size_t size : sizes) {
        CAPTURE(size);
        for (const PeerId at : {A, B}) {
            const Bytes path = "/" + paper::show(at) + std::to_string(size);
            const CallPtr call = w.create(at, at == A ? s : remote, path, Bytes(size, 'x'));
            REQUIRE(w.run_until([&] { return call->done; }, seconds(5)));
            CHECK((call->error == Errc::ok || call->error == Errc::too_large));
            if (call->error == Errc::ok) most = (std::max)(most, size);
            if (call->error != Errc::ok) least = (std::min)(least, size);
        }
    }
    CHECK(most >= 700);
    CHECK(least < 800);
    CHECK(least == most + 5);  // one bound for data, path and all else of it
    CHECK(w.verify() == "");
}

// A snapshot went to a slow peer under locks that everybody needed. Violated: liveness. Here each
// chunk takes a second; meanwhile each write ends without any time passing.
TEST_CASE("ZooKeeper B12 (ZOOKEEPER-3531, 4858): a slow learner does not hold up writes") {
    World w(often(1024));
    const SessionId s = three(w);
    leave_behind(w, s);
    w.hold(MessageType::chunk, A, C);
    w.start(C);
    int chunks = 0;
    for (; w[C].counters().snapshots_installed == 0 && chunks < 100; chunks++) {
        w.run(milliseconds(200));
        for (int i = 0; i < 3; i++) {
            const CallPtr call = w.create(A, s, "/m" + std::to_string(chunks * 3 + i));
            w.flow();
            CHECK(call->done);
        }
        w.deliver(MessageType::chunk, A, C);
        w.lose(MessageType::chunk, A, C);
    }
    CHECK(chunks > 4);
    CHECK(chunks < 100);
    CHECK(w.verify() == "");
}

// -------------------------------------------------------------------------------------------------
// C: election

// The leader fails right after it was elected. ZooKeeper: nobody heard a new vote, the election
// never ended. Violated: liveness.
TEST_CASE("ZooKeeper C1 (ZOOKEEPER-569): the leader fails right after the election") {
    World w;
    three(w);
    for (int times = 0; times < 3; times++) {
        w.crash_all();
        w.start_all();
        REQUIRE(w.run_until([&] { return w[A].status().role == Role::leading; }));
        REQUIRE_FALSE(w.serves(A));
        w.crash(A);
        CHECK(w.run_until([&] { return w.leads(B) && w.are_equal({B, C}); }, seconds(3)));
        w.start(A);
        CHECK(w.run_until([&] { return w.are_equal({A, B, C}); }, seconds(3)));
    }
    CHECK(w.verify() == "");
}

// Five servers; some elected their leader long ago, some now, and the answers of those count for
// another round. ZooKeeper: they never settled. 1. Three elect the leader. 2. The other two come
// one by one. 3. The leader goes, and comes back as soon as there is another. Violated: liveness.
TEST_CASE("ZooKeeper C2 (ZOOKEEPER-1419): five servers settle, whenever each joined") {
    WorldOptions options;
    options.voters = 5;
    World w(options);
    const std::vector<PeerId> all = w.ids();
    found(w);
    REQUIRE(bring_up(w, {PeerId{1}, PeerId{2}, PeerId{5}}));
    REQUIRE(bring_up(w, {PeerId{1}, PeerId{2}, PeerId{3}, PeerId{5}}));
    REQUIRE(bring_up(w, all));
    for (int times = 0; times < 6; times++) {
        CAPTURE(times);
        const PeerId leader = w.leader();
        w.crash(leader);
        REQUIRE(w.run_until([&] { return w.leader() != PeerId{}; }, seconds(5)));
        const PeerId follower = w.leader() == PeerId{1} ? PeerId{2} : PeerId{1};
        if (w.is_up(follower)) w.crash(follower);
        w.start(leader);
        w.run(milliseconds(30));
        w.start(follower);
        CHECK(w.run_until([&] { return w.are_equal(all); }, seconds(5)));
        CHECK(w.leader() != leader);
    }
    CHECK(w.verify() == "");
}

// A server that was alone for long, in a round of its own, joins those who have a leader: it takes
// the leader that they have and disturbs nobody. Violated: liveness.
TEST_CASE("ZooKeeper C3 (ZOOKEEPER-1514): one that was long alone joins the leader that there is") {
    World w;
    const SessionId s = three(w);
    w.isolate(C);
    w.run(seconds(120));
    REQUIRE(w[C].status().role == Role::looking);
    REQUIRE(w.write(A, s, "/b"));
    w.heal();
    CHECK(w.run_until([&] { return w.are_equal({A, B, C}); }, seconds(2)));
    CHECK(w.leads(A));
    CHECK(w[A].status().epoch == 1);
    CHECK(w.verify() == "");
}

// The members of an ensemble answer a server that is looking with what they knew when they elected
// the leader, which differs from one to the other; the leader's own answer is slow. ZooKeeper: the
// votes for one leader did not count together, and the server stayed outside. Violated: liveness.
TEST_CASE("ZooKeeper C4 (ZOOKEEPER-1732, 1805, 1817): members that differ let a server in") {
    WorldOptions options;
    options.voters = 5;
    World w(options);
    const PeerId leader{5}, late{1};
    found(w);
    REQUIRE(bring_up(w, {PeerId{2}, PeerId{3}, PeerId{4}, leader}));
    const SessionId s = w.open(leader);
    for (int i = 0; i < 3; i++) {  // each follower joins at another zxid
        const PeerId follower{2 + static_cast<std::uint32_t>(i)};
        if (w.is_up(follower)) w.crash(follower);
        REQUIRE(w.write(leader, s, "/x" + std::to_string(i)));
        w.start(follower);
        REQUIRE(w.run_until([&] { return w.serves(follower); }, seconds(2)));
    }
    w.hold(MessageType::notification, leader, late);
    w.start(late);
    w.run(milliseconds(700));
    CHECK(w[late].status().role != Role::leading);
    w.no_rules();
    CHECK(w.run_until([&] { return w.are_equal(w.ids()); }, seconds(2)));
    CHECK(w.leads(leader));
    CHECK(w.verify() == "");
}

// 1. B and C elect B. 2. B leads; before C knows, it hears of A, who is better, and changes its
// mind. 3. B waits for a quorum that does not come. Violated: liveness, for as long as initLimit.
TEST_CASE("ZooKeeper C5 (ZOOKEEPER-3109): a voter changes its mind at the last moment") {
    World w;
    found(w);
    w.start(B);
    w.start(C);
    REQUIRE(w.run_until([&] { return w[B].status().role == Role::leading; }));
    w.hold_link(B, C);
    w.crash(C);
    w.start(C);  // it has not heard that B leads
    w.hold(MessageType::notification, B, A);
    w.start(A);
    CHECK(w.run_until([&] { return w.leads(A) && w.are_equal({A, C}); }, seconds(3)));
    w.no_rules();
    CHECK(w.run_until([&] { return w.are_equal({A, B, C}); }, seconds(3)));
    CHECK(w.verify() == "");
}

// Two of five are gone without a word, so that whoever dialled them waited for seconds, and with it
// whoever waited for that one: elections took longer than was waited for them. Here nothing waits
// for a peer that does not answer. Violated: liveness.
TEST_CASE("ZooKeeper C6 (ZOOKEEPER-2164, 3756): an election is as quick while some are gone") {
    WorldOptions options;
    options.voters = 5;
    const auto takes = [&](std::uint32_t gone) {
        World w(options);
        found(w);
        for (std::uint32_t id = 1 + gone; id <= 5; id++) w.start(PeerId{id});
        const coord::Time before = w.now();
        REQUIRE(w.run_until([&] { return w.leads(PeerId{5}); }, seconds(5)));
        const Duration took = w.now() - before;
        CHECK(w.verify() == "");
        return took;
    };
    const Duration heartbeat = options.timing.heartbeat;
    CHECK(takes(0) < heartbeat * 2);
    CHECK(takes(1) < heartbeat * 2);
    CHECK(takes(2) < heartbeat * 2);
}

// Two servers believe to lead: the result of an election is a hint. 1. A leads epoch 1, patiently.
// 2. It is cut off; B leads epoch 2. Now both are established, in different epochs. 3. A takes a
// write, which must not be acknowledged while B commits another. Checked: one established leader an
// epoch, nothing of the old one commits.
TEST_CASE("ZooKeeper C12: of two leaders only one can commit") {
    WorldOptions options;
    options.tune = [](coord::ReplicaOptions& replica) {
        if (replica.id == A) replica.timing.silence = seconds(20);
    };
    World w(options);
    const SessionId s = three(w);
    w.isolate(A);
    w.lose_on_cut_links();
    REQUIRE(w.run_until([&] { return w.leads(B); }));
    CHECK((w[A].status().role == Role::leading && w.serves(A)));
    const CallPtr old = w.create(A, s, "/old");
    REQUIRE(w.write(B, w.open(B), "/new"));
    w.run(seconds(2));
    CHECK(w.serves(A));
    CHECK_FALSE(old->done);
    CHECK_FALSE(w.has(A, "/old"));
    CHECK(w.ledger.established(1) == A);
    CHECK(w.ledger.established(2) == B);
    CHECK(w.settle() == "");
    CHECK_FALSE(w[A].log().contains(Zxid(1, 5)));
    CHECK(w.run_until([&] { return old->done; }));  // its replica has asked the new leader for it
    CHECK(old->zxid.epoch() > 1);
    CHECK(w.verify() == "");
}

// The election gives the wrong leader: 1. A and C commit 1.5; B has 1.4. 2. A is gone; B and C
// start. 3. B is made to lead by a vote of C that C did not give. 4. C follows B, as it leads. B
// must not be established over C's newer history. Violated otherwise: leader completeness.
TEST_CASE("ZooKeeper C12: who leads by mistake does not get over a newer history") {
    World w;
    const SessionId s = three(w);
    w.isolate(B);
    REQUIRE(w.write(A, s, "/c"));
    REQUIRE(in_step(w, {A, C}));
    w.crash_all();
    w.heal();
    w.hold(MessageType::notification, C, B);
    w.hold(MessageType::notification, B, C);
    w.start(B);
    w.start(C);
    Packet vote = *w.first(MessageType::notification, C, B);
    Message message = vote.message();
    message.zxid = Zxid(1, 4), message.leader = B;
    Bytes hears_all;
    const std::uint64_t everybody = 7;
    coord::write_voters(coord::Voters({A, B, C}), {everybody, everybody}, B, hears_all);
    message.payload = hears_all;
    message.sequence += 100;
    vote.bytes.clear();
    coord::encode_message(message, vote.bytes);
    w.deliver_copy(vote);
    REQUIRE(w.run_until([&] { return w[B].status().role == Role::leading; }, seconds(1)));
    w.lose_all();
    w.no_rules();
    w.hold(MessageType::ack_epoch, C, B);
    REQUIRE(w.run_until([&] { return w.count(MessageType::ack_epoch, C, B) > 0; }, seconds(1)));
    REQUIRE(w[B].status().role == Role::leading);
    REQUIRE(w.deliver(MessageType::ack_epoch, C, B));
    CHECK(w.count(MessageType::trunc, B, C) == 0);
    CHECK_FALSE(w.serves(B));
    w.no_rules();
    REQUIRE(in_step(w, {B, C}));
    CHECK(w.leads(C));
    CHECK(w.has(B, "/c"));
    CHECK(w.verify() == "");
}

// A promise that a crash undoes could be given twice, and an epoch have two leaders. 1. B's disk is
// busy: it must not tell the epoch that it has taken. 2. C's is: it must not promise it. 3. C
// crashes and has promised nothing.
TEST_CASE("ZooKeeper C12: an epoch is told, and promised, when it is durable") {
    World w;
    three(w);
    w.crash_all();
    w.hold(MessageType::follower_info, C, B);
    w.start(B);
    w.start(C);
    REQUIRE(w.run_until([&] { return w.count(MessageType::follower_info, C, B) > 0; }));
    w.disk(B).hold_flushes();
    w.disk(C).hold_flushes();
    w.no_rules();
    w.hold(MessageType::leader_info, B, C);
    w.run(milliseconds(150));
    REQUIRE(w.disk(B).flushed() > w.disk(B).durable());
    CHECK(w.count(MessageType::leader_info, B, C) == 0);
    w.release(B);
    REQUIRE(w.run_until([&] { return w.count(MessageType::leader_info, B, C) > 0; }));
    w.no_rules();
    w.hold(MessageType::ack_epoch, C, B);
    w.run(milliseconds(150));
    REQUIRE(w.disk(C).flushed() > w.disk(C).durable());
    CHECK(w.count(MessageType::ack_epoch, C, B) == 0);
    w.crash(C);
    w.start(C);
    CHECK(w[C].status().accepted_epoch == 1);
    CHECK(w.verify() == "");
}

// -------------------------------------------------------------------------------------------------
// D: sessions and ephemeral nodes

struct Forged {
    SessionId session;
    std::uint64_t cxid = 0;
    Bytes path;
};

// A REQUEST as `like` is one, that creates an ephemeral node.
Packet forge_create(const Packet& like, const Forged& forged) {
    Bytes body;
    coord::Writer fields(body);
    fields.bytes(forged.path), fields.bytes("");
    fields.i32(static_cast<std::int32_t>(CreateMode::ephemeral));
    Bytes payload;
    coord::Writer writer(payload);
    writer.u64(forged.session.value), writer.u64(forged.cxid), writer.u64(0);
    writer.u8(static_cast<std::uint8_t>(coord::OpCode::create));
    writer.bytes(body);
    Message message = like.message();
    message.payload = payload;
    Packet packet = like;
    packet.bytes.clear();
    coord::encode_message(message, packet.bytes);
    return packet;
}

// 1. closeSession is prepared, with the list of what it deletes. 2. A create of the same session,
// already in the pipe, is prepared next. 3. The close is applied, and the new node lives for ever.
// Violated: ephemeral owner.
TEST_CASE("ZooKeeper D1 (ZOOKEEPER-1208): nothing of a session is numbered after its close") {
    World w;
    three(w);
    const SessionId s = w.open(B);
    w.hold(MessageType::request, B, A);
    const CallPtr close = w.ask(Request::Kind::close, B, s, "");
    const CallPtr refused = w.create(B, s, "/e0");  // by this handle it does not even start
    REQUIRE(w.count(MessageType::request, B, A) == 1);
    const Packet late = forge_create(*w.first(MessageType::request, B, A), {s, 2, "/e"});
    w.hold(MessageType::ack, anybody, A);
    const Zxid before = w.last(A);
    REQUIRE(w.deliver(MessageType::request, B, A));
    REQUIRE(w.last(A) > before);
    REQUIRE(w[A].status().committed == before);     // numbered, and not applied
    const Zxid closing = w.last(A);
    const std::uint64_t ignored = w[A].leader_counters().requests_ignored;
    w.deliver_copy(late);
    CHECK(w[A].leader_counters().requests_ignored == ignored + 1);
    CHECK(w.last(A) == closing);
    w.no_rules();
    REQUIRE(w.run_until([&] { return close->done && refused->done; }));
    CHECK(close->error == Errc::ok);
    CHECK(refused->error == Errc::session_expired);
    w.deliver_copy(late);
    CHECK(w.verify() == "");
    CHECK_FALSE(w.has(A, "/e"));
    CHECK(w[A].machine().find_session(s) == nullptr);
}

// 1. The leader finds a session expired and numbers its close. 2. Before that is applied, the
// session is heard of again, and a create of it arrives. 3. ZooKeeper had it out of its table
// already: the touch made it anew, or the node leaked. Violated: ephemeral owner.
TEST_CASE("ZooKeeper D2 (ZOOKEEPER-1496): an expiry that has been numbered stands") {
    World w;
    three(w);
    const SessionId s = w.open(B, seconds(1));
    REQUIRE(in_step(w, {A, B, C}));
    w.hold(MessageType::pong, B, A);
    w.hold(MessageType::request, B, A);
    const CallPtr node = w.ask(Request::Kind::create, B, s, "/e", {}, CreateMode::ephemeral);
    w.poll(B);
    w.run(milliseconds(900));  // that it has been silent for three quarters is in the log
    w.hold(MessageType::ack, anybody, A);
    const auto expired = [&] { return w[A].leader_counters().sessions_expired == 1; };
    REQUIRE(w.run_until(expired, seconds(5)));
    const Zxid closing = w.last(A);
    while (w.deliver(MessageType::pong, B, A)) {}
    while (w.deliver(MessageType::request, B, A)) {}
    w.run(milliseconds(300));
    CHECK(w.last(A) == closing);
    w.no_rules();
    REQUIRE(w.run_until([&] { return node->done; }));
    CHECK(node->error == Errc::session_expired);
    CHECK(w.verify() == "");
    CHECK_FALSE(w.has(A, "/e"));
    CHECK(w[A].machine().find_session(s) == nullptr);
}

// The request to open a session is executed, its reply lost: the client never knows that session,
// and whatever it owns stays until a timeout. Here the open carries a nonce. 1. B's request reaches
// A twice. 2. A commits it, nobody else knows, A dies. 3. B asks the next leader again.
TEST_CASE("ZooKeeper D5 (ZOOKEEPER-2985): a repeated open finds its session and leaves no ghost") {
    World w;
    three(w);
    const std::size_t before = w[A].status().sessions;
    std::vector<SessionId> opened;
    w.hold(MessageType::request, C, A);
    w[C].open_session({}, [&](coord::Result<SessionId> id) {
        REQUIRE(id);
        opened.push_back(*id);
    });
    w.poll(C);
    REQUIRE(w.count(MessageType::request, C, A) == 1);
    const Packet request = *w.first(MessageType::request, C, A);
    w.no_rules();
    w.hold(MessageType::commit, A, anybody);
    w.hold(MessageType::ping, A, anybody);
    w.deliver_copy(request);
    w.deliver_copy(request);
    w.flow();
    REQUIRE(w[A].status().sessions == before + 1);
    REQUIRE(opened.empty());  // the reply has not come
    SessionId known;
    for (const auto& each : w[A].machine().sessions()) known = each.first;  // the newest
    w.crash(A);
    w.lose_all();
    w.no_rules();
    REQUIRE(w.run_until([&] { return !opened.empty(); }, seconds(5)));
    w.run(seconds(1));
    CHECK(opened == std::vector<SessionId>{known});
    CHECK(w[B].status().sessions == before + 1);
    const CallPtr node = w.ask(Request::Kind::create, C, known, "/e", {}, CreateMode::ephemeral);
    REQUIRE(w.run_until([&] { return node->done; }));
    CHECK(node->error == Errc::ok);
    CHECK(w[B].tree().find("/e")->stat.ephemeral_owner == known);
    w.ledger.forget_promise("/e");  // its owner's replica restarts for longer than it may
    CHECK(w.verify() == "");
}

// -------------------------------------------------------------------------------------------------
// G: reads

// 1. A leads {A..E}; X is a client of A, Y of B. 2. The network falls into {A,B} and {C,D,E}; C
// leads epoch 2 and commits w. 3. Before A notices, X calls sync and reads: nothing was outstanding
// at A, so it was answered at once, and read the old value; so did Y. Violated: linearizability of
// a read after sync.
TEST_CASE("ZooKeeper G1 (ZOOKEEPER-1675, 2136, 3600): no answer to sync from a deposed leader") {
    constexpr PeerId a{5}, b{4}, c{3}, d{2}, e{1};
    WorldOptions options;
    options.voters = 5;
    options.tune = [&](coord::ReplicaOptions& replica) {
        if (replica.id == a || replica.id == b) replica.timing.silence = seconds(30);
    };
    World w(options);
    REQUIRE(bring_up(w, {a, b, c, d, e}));
    REQUIRE(w.leads(a));
    const SessionId x = w.open(a), y = w.open(b), writer = w.open(c);
    for (const PeerId one : {a, b}) {
        for (const PeerId other : {c, d, e}) w.cut(one, other);
    }
    w.lose_on_cut_links();
    REQUIRE(w.run_until([&] { return w.leads(c) && w.serves(d) && w.serves(e); }));
    REQUIRE(w.write(c, writer, "/w", "new"));
    REQUIRE((w.serves(a) && w[a].status().role == Role::leading && w.serves(b)));

    const CallPtr plain = w.ask(Request::Kind::get, a, x, "/w");
    const CallPtr sync_x = w.ask(Request::Kind::sync, a, x, "");
    const CallPtr read_x = w.ask(Request::Kind::get, a, x, "/w");
    const CallPtr sync_y = w.ask(Request::Kind::sync, b, y, "");
    const CallPtr read_y = w.ask(Request::Kind::get, b, y, "/w");
    w.run(seconds(5));
    REQUIRE(w.serves(a));  // it still does not know
    CHECK(plain->result == "none");  // a local read may be old
    CHECK_FALSE(sync_x->done);
    CHECK_FALSE(read_x->done);
    CHECK_FALSE(sync_y->done);
    CHECK_FALSE(read_y->done);

    CHECK(w.settle(seconds(120)) == "");
    REQUIRE(w.run_until([&] { return read_x->done && read_y->done; }));
    CHECK(sync_x->error == Errc::ok);
    CHECK(read_x->result == "=new");
    CHECK(read_y->result == "=new");
    CHECK(w.verify() == "");
}

TEST_SUITE_END();

}  // namespace
