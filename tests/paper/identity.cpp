// The identity of a voter: disks that are lost, damaged, rolled back, copied or swapped, with the
// letters of the fault catalogue. A voter that has forgotten what it promised and acknowledged must
// not count as if it were the old one; it learns, and is admitted again. Each scenario ends with
// verify(): all are healed, every acknowledged write is looked for at every replica, all restart.

#include <doctest/doctest.h>

#include "../support.hpp"
#include "harness.hpp"

namespace {

using coord::milliseconds;
using coord::seconds;
using paper::Bytes;
using paper::BytesView;
using paper::Message;
using paper::MessageType;
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

bool is_admitted(World& w, PeerId id) { return w.is_up(id) && w[id].status().admitted; }

bool are_admitted(World& w, const std::vector<PeerId>& group) {
    return w.run_until([&] {
        for (const PeerId id : group) {
            if (!is_admitted(w, id)) return false;
        }
        return true;
    });
}

std::string reason(World& w, PeerId id) { return w[id].status().reason; }

// A leads all three, and has written /a.
SessionId three(World& w) {
    REQUIRE(bring_up(w, w.ids()));
    REQUIRE(w.leader() == A);
    const SessionId session = w.open(A);
    REQUIRE(w.write(A, session, "/a"));
    REQUIRE(in_step(w, w.ids()));
    return session;
}

// A and B have written /b, which C has not; A is down, and so is B.
void only_two_know(World& w) {
    const SessionId s = three(w);
    w.isolate(C);
    REQUIRE(w.write(A, s, "/b"));
    w.crash(A), w.crash(B);
    w.lose_all(), w.heal();
}

bool anybody_leads_within(World& w, coord::Duration time) {
    return w.run_until([&] { return w.leader() != PeerId{}; }, time);
}

// The storage of another one's disk: what it holds, under the same id.
class Copy final : public coord::Storage {
public:
    explicit Copy(coord::MemoryStorage& of) : id_(of.id()) {
        struct Sink final : coord::RecoverySink {
            explicit Sink(coord::MemoryStorage& d) : disk(d) {}
            void on_record(coord::Sequence, BytesView record) override {
                REQUIRE(disk.append(record) == coord::Errc::ok);
            }
            void on_snapshot(coord::Sequence, BytesView, std::uint64_t) override { FAIL("one"); }
            coord::MemoryStorage& disk;
        } sink(disk_);
        REQUIRE(of.open(sink, {}) == coord::Errc::ok);
        REQUIRE(disk_.flush() == coord::Errc::ok);
    }
    coord::Errc open(coord::RecoverySink& sink, const coord::StorageOwner& owner) override {
        return disk_.open(sink, owner);
    }
    coord::Errc append(BytesView record) override { return disk_.append(record); }
    coord::Errc begin_snapshot() override { return disk_.begin_snapshot(); }
    coord::Errc write_snapshot(BytesView piece) override { return disk_.write_snapshot(piece); }
    coord::Errc end_snapshot(coord::Sequence first_needed, bool replaces) override {
        return disk_.end_snapshot(first_needed, replaces);
    }
    coord::Errc read_snapshot(coord::Sequence snapshot, std::uint64_t offset, std::size_t size,
                              Bytes& out) override {
        return disk_.read_snapshot(snapshot, offset, size, out);
    }
    coord::Errc flush() override { return disk_.flush(); }
    coord::Sequence appended() const override { return disk_.appended(); }
    coord::Sequence durable() const override { return disk_.durable(); }
    coord::Errc health() const override { return disk_.health(); }
    std::uint64_t id() const override { return id_; }

private:
    coord::MemoryStorage disk_;
    const std::uint64_t id_;
};

TEST_SUITE_BEGIN("paper");

// -------------------------------------------------------------------------------------------------
// Founding

TEST_CASE("founding: a majority is not enough, also not one that waits for long") {
    World w;
    w.start(A), w.start(B);
    CHECK_FALSE(anybody_leads_within(w, seconds(30)));
    CHECK(w[A].status().last == Zxid{});
    CHECK_FALSE(is_admitted(w, A));
    w.start(C);
    CHECK(in_step(w, {A, B, C}));
    CHECK(w.last(A) == Zxid(w[A].status().epoch, 2));
    for (const PeerId id : w.ids()) {
        CHECK(is_admitted(w, id));
        CHECK(w[id].status().storage == w.disk(id).id());
    }
    CHECK_FALSE(w[A].machine().voters().is_founding());
    CHECK(w.verify() == "");
}

TEST_CASE("founding: whoever serves bears the loss of the leader from the first moment on") {
    World w;
    w.start_all();
    REQUIRE(w.run_until([&] { return w.serves(A); }));
    w.crash(A), w.lose_all();
    CHECK(in_step(w, {B, C}));
    CHECK(w.verify() == "");
}

TEST_CASE("founding: once founded, a majority is enough, and no epoch was used up by waiting") {
    World w;
    w.start(A), w.start(B);
    w.run(seconds(20));
    CHECK(w[A].status().accepted_epoch == 0);
    w.start(C);
    REQUIRE(in_step(w, {A, B, C}));
    w.crash_all();
    CHECK(bring_up(w, {B, C}));
    CHECK(w.verify() == "");
}

// The hole of a majority that founds: of two voters one has never been up, and the other has lost
// its disk; the third has all of the data and is away.
TEST_CASE("founding: who never was there and who was wiped do not found a second ensemble") {
    for (const bool is_back : {false, true}) {
        CAPTURE(is_back);
        World w;
        only_two_know(w);
        w.crash(C);
        w.wipe(B), w.wipe(C);  // C as if it had never been there
        w.start(B), w.start(C);
        CHECK_FALSE(anybody_leads_within(w, seconds(20)));
        CHECK(w[B].status().last == Zxid{});
        if (!is_back) continue;
        w.start(A);  // all are there; but A knows better than that it is new, and is one of three
        CHECK_FALSE(anybody_leads_within(w, seconds(20)));
        CHECK(w.has(A, "/a") == false);  // it has not found out what is committed
        CHECK(w[A].log().last().zxid > Zxid(1, 3));
    }
}

// 1. A founds; nobody but A has the entry. 2. A's disk is put aside; with an empty one A founds
// again, with B and C, and a write is acknowledged. 3. The first disk is put in again. Its table
// names B and C as well, so B, which was slow, might have been enough for it.
TEST_CASE("founding: the disk of a founding that was not completed comes back") {
    World w;
    w.hold(MessageType::proposal, A, paper::anybody);
    for (const PeerId id : w.ids()) w.start(id);
    REQUIRE(w.run_until([&] { return w[A].status().durable > Zxid{}; }, seconds(5)));
    REQUIRE(w.leader() == PeerId{});
    w.crash(A);
    w.lose_all(), w.no_rules();
    coord::MemoryStorage aside;
    w.swap_disk(A, aside);
    REQUIRE(bring_up(w, {A, B, C}));
    const PeerId leader = w.leader();
    w.isolate(leader == B ? C : B);
    REQUIRE(w.write(leader, w.open(leader), "/x"));
    w.crash_all(), w.heal();
    w.swap_disk(A, aside);
    w.start(A), w.start(leader == B ? C : B);
    CHECK_FALSE(anybody_leads_within(w, seconds(10)));
    w.crash_all();
    REQUIRE(bring_up(w, {B, C}));
    CHECK(w.has(B, "/x"));
    w.start(A);  // it never counted: a newcomer as any other
    CHECK(are_admitted(w, {A, B, C}));
    CHECK(w.has(A, "/x"));
    CHECK(w.verify() == "");
}

TEST_CASE("founding: with less than all permissions nothing is founded, and it says why") {
    WorldOptions options;
    options.tune = [](coord::ReplicaOptions& replica) { replica.may_found = replica.id != B; };
    World w(options);
    w.start_all();
    CHECK_FALSE(anybody_leads_within(w, seconds(10)));
    CHECK(reason(w, A) == "not all voters are here and may found an ensemble");
    w.crash(A), w.start(A);
    w.run(seconds(3));
    CHECK(w[A].status().last == Zxid{});
}

TEST_CASE("founding: a voter loses its disk before all had founded: they found once more") {
    World w;
    w.hold(MessageType::ack, C, A);
    w.start_all();
    REQUIRE(w.run_until([&] { return w[B].status().epoch == 1; }, seconds(5)));
    REQUIRE(w.leader() == PeerId{});
    w.crash(C);
    w.lose_all(), w.no_rules();
    w.wipe(C), w.start(C);
    CHECK(in_step(w, {A, B, C}));
    CHECK(are_admitted(w, {A, B, C}));
    CHECK(w.verify() == "");
}

// M8: all voters are wiped at once.
TEST_CASE("faults M8: who may not found does not make an empty ensemble of an old one") {
    bool may_found = true;
    WorldOptions options;
    options.tune = [&](coord::ReplicaOptions& replica) { replica.may_found = may_found; };
    World w(options);
    three(w);
    may_found = false;
    w.crash_all();
    REQUIRE(bring_up(w, {A, B, C}));  // whoever is in the table needs no permission
    w.crash_all();
    for (const PeerId id : w.ids()) w.wipe(id);
    w.start_all();
    CHECK_FALSE(anybody_leads_within(w, seconds(20)));
    CHECK(reason(w, A) == "this storage may not found an ensemble");
    for (const PeerId id : w.ids()) CHECK(w[id].status().last == Zxid{});
}

// -------------------------------------------------------------------------------------------------
// Disks that are empty

// 1. A and B acknowledge /b; C is cut off. 2. A is down; B comes back with an empty disk. 3. B and
// C are a majority of names. Violated elsewhere: committed durability.
TEST_CASE("faults M5: a wiped voter does not elect a leader that lacks what it acknowledged") {
    World w;
    only_two_know(w);
    w.wipe(B), w.start(B);
    CHECK_FALSE(anybody_leads_within(w, seconds(20)));
    CHECK_FALSE(is_admitted(w, B));
    w.start(A);
    CHECK(in_step(w, {A, B, C}));
    CHECK(w.leader() == A);
    CHECK(are_admitted(w, {A, B, C}));
    CHECK(w.has(B, "/b"));
    CHECK(w.verify() == "");
}

TEST_CASE("faults M5: it counts again when it is admitted, and not before") {
    World w;
    const SessionId s = three(w);
    w.crash(B), w.wipe(B);
    w.isolate(C);
    w.start(B);
    REQUIRE(w.run_until([&] { return w[A].status().role == Role::looking; }, seconds(5)));
    CHECK_FALSE(anybody_leads_within(w, seconds(10)));  // A has B's name behind it, and no more
    w.heal();
    REQUIRE(in_step(w, {A, B, C}));
    REQUIRE(are_admitted(w, {A, B, C}));
    w.isolate(C);
    CHECK(w.write(A, s, "/c"));
    CHECK(w.leader() == A);
    w.crash(A), w.heal();
    CHECK(in_step(w, {B, C}));
    CHECK(w.has(B, "/c"));
    CHECK(w.verify() == "");
}

TEST_CASE("faults M5: every disk is lost, one after the other, and nothing else is") {
    World w;
    const SessionId s = three(w);
    std::vector<std::uint64_t> storages;
    for (int round = 0; round < 2; round++) {
        for (const PeerId id : w.ids()) {
            storages.push_back(w.disk(id).id());
            w.crash(id), w.wipe(id);
            REQUIRE(bring_up(w, {A, B, C}));
            REQUIRE(are_admitted(w, {A, B, C}));
            CHECK(std::count(storages.begin(), storages.end(), w.disk(id).id()) == 0);
        }
    }
    CHECK(w[C].machine().find_session(s) != nullptr);
    CHECK(w.has(C, "/a"));
    CHECK(w.verify() == "");
}

TEST_CASE("faults M5: two of five are wiped at once, and both are admitted") {
    WorldOptions options;
    options.voters = 5;
    World w(options);
    REQUIRE(bring_up(w, w.ids()));
    const PeerId leader = w.leader();
    REQUIRE(w.write(leader, w.open(leader), "/a"));
    for (const PeerId id : {PeerId{1}, PeerId{2}}) w.crash(id), w.wipe(id), w.start(id);
    REQUIRE(are_admitted(w, w.ids()));
    for (const PeerId id : {PeerId{3}, PeerId{4}}) w.crash(id);
    CHECK(w.write(leader, w.open(leader), "/b"));  // with nobody but those two
    CHECK(w.verify() == "");
}

TEST_CASE("faults M5: it is admitted also through a snapshot") {
    WorldOptions options;
    options.tune = [](coord::ReplicaOptions& replica) {
        replica.snapshot_every_entries = 5, replica.log_entries_kept = 1;
    };
    World w(options);
    const SessionId s = three(w);
    for (int i = 0; i < 20; i++) REQUIRE(w.write(A, s, "/n" + std::to_string(i)));
    w.run(seconds(1));
    w.crash(C), w.wipe(C), w.start(C);
    REQUIRE(are_admitted(w, {C}));
    CHECK(w[C].counters().snapshots_installed == 1);
    CHECK(w.has(C, "/n19"));
    CHECK(w.verify() == "");
}

// The change of the table is in the log of every voter and applied nowhere: all have restarted.
TEST_CASE("faults M5: an admission that is not applied yet counts after a restart of all") {
    World w;
    three(w);
    w.crash(C), w.wipe(C);
    REQUIRE(bring_up(w, {A, B, C}));
    REQUIRE(are_admitted(w, {A, B, C}));
    w.crash_all();
    REQUIRE(bring_up(w, {B, C}));  // A does not come: it takes C's new disk
    CHECK(w.verify() == "");
}

// -------------------------------------------------------------------------------------------------
// The change of the table itself

// A has committed that nothing counts for B, and has numbered the new disk of B; C lacks that. A
// dies. C and B's new disk must not lose anything, whoever has the entry.
TEST_CASE("admission: the leader dies between its two steps, and after the second") {
    for (const bool both : {false, true}) {
        CAPTURE(both);
        World w;
        const SessionId s = three(w);
        w.crash(B), w.wipe(B);
        w.start(B);
        REQUIRE(w.run_until([&] {
            return w[A].machine().voters().storage_of(B) == 0;
        }, seconds(10)));
        if (both) {
            w.lose_from_now(MessageType::proposal, A, C);
            REQUIRE(w.run_until([&] { return !w[A].log().admits().empty() &&
                                             w[B].log().last().zxid == w[A].log().last().zxid; },
                                seconds(5)));
        }
        CHECK(w.create(A, s, "/late")->done == false);
        w.crash(A), w.lose_all(), w.no_rules();
        if (both) CHECK(in_step(w, {B, C}));
        CHECK(w.verify() == "");
        CHECK(are_admitted(w, {A, B, C}));
    }
}

// Nobody but A has the entry that takes B's old disk out; A is cut off. C still has B's old disk in
// its table, and may count it when it comes back; but A does not count B's new one meanwhile.
TEST_CASE("admission: it is not committed by the voter that it is about") {
    World w;
    const SessionId s = three(w);
    w.crash(B);
    coord::MemoryStorage old;
    w.swap_disk(B, old);
    w.start(B);
    REQUIRE(in_step(w, {A, B, C}));
    w.lose_from_now(MessageType::proposal, A, C);
    w.lose_from_now(MessageType::ack, C, A);
    const Zxid before = w[A].status().committed;
    const auto call = w.create(A, s, "/alone");
    w.run_until([&] { return w[A].log().last().zxid > Zxid(1, before.counter() + 1); }, seconds(3));
    w.run(milliseconds(600));
    CHECK_FALSE(call->done);
    CHECK(w[A].status().committed == before);
    w.isolate(A);
    w.crash(B), w.lose_all(), w.no_rules();
    w.swap_disk(B, old);
    w.start(B);
    CHECK(w.run_until([&] { return w.are_equal({B, C}); }, seconds(5)));  // both are in the table
    CHECK(w.write(w.leader(), w.open(w.leader()), "/other"));
    CHECK_FALSE(call->done);
    CHECK(w.verify() == "");
}

TEST_CASE("admission: a disk that was replaced comes back, and fails by name") {
    for (const bool by_snapshot : {false, true}) {
        CAPTURE(by_snapshot);
        WorldOptions options;
        options.tune = [&](coord::ReplicaOptions& replica) {
            if (by_snapshot) replica.snapshot_every_entries = 3, replica.log_entries_kept = 0;
        };
        World w(options);
        const SessionId s = three(w);
        w.crash(B);
        coord::MemoryStorage old;
        w.swap_disk(B, old);
        w.start(B);
        REQUIRE(are_admitted(w, {A, B, C}));
        for (int i = 0; i < 8; i++) REQUIRE(w.write(A, s, "/n" + std::to_string(i)));
        w.run(seconds(1));
        w.crash(B);
        w.swap_disk(B, old);
        w.ledger.allow_failure(B);
        for (int i = 0; i < 2; i++) {  // and again, when it is started once more
            w.start(B);
            CHECK(w.run_until([&] { return w[B].status().role == Role::failed; }, seconds(5)));
            CHECK(reason(w, B) == "another replica has been admitted under this id");
            w.crash(B);
        }
        w.swap_disk(B, old);
        w.ledger.forbid_failure(B);
        CHECK(w.verify() == "");
    }
}

// -------------------------------------------------------------------------------------------------
// Disks that are copied or rolled back

TEST_CASE("faults M6: a copied configuration with an empty disk, beside the voter: it is refused") {
    World w;
    const SessionId s = three(w);
    const std::uint64_t storage = w.disk(B).id();
    coord::MemoryStorage strangers;
    coord::Replica& twin = w.start_twin(B, strangers);
    CHECK(w.run_until([&] { return twin.status().role == Role::failed; }, seconds(10)));
    CHECK(std::string(twin.status().reason) == "another replica is alive under this id");
    CHECK(w[A].leader_counters().refusals == 1);
    CHECK(w[A].machine().voters().storage_of(B) == storage);
    CHECK(w[B].status().role == Role::following);
    w.isolate(C);
    CHECK(w.write(A, s, "/b"));
    w.stop_twin(B);
    CHECK(w.verify() == "");
}

TEST_CASE("faults M6: a cloned disk, beside the voter: one of the two is refused") {
    World w;
    const SessionId s = three(w);
    w.crash(B);
    Copy copy(w.disk(B));
    w.start(B);
    REQUIRE(in_step(w, {A, B, C}));
    coord::Replica& twin = w.start_twin(B, copy);
    w.ledger.allow_failure(B);
    const auto failed = [&](const coord::Replica& r) { return r.status().role == Role::failed; };
    CHECK(w.run_until([&] { return failed(twin) || failed(w[B]); }, seconds(10)));
    w.run(seconds(3));
    CHECK(failed(twin) != failed(w[B]));
    const coord::Replica& other = failed(twin) ? twin : w[B];
    CHECK(std::string(other.status().reason) == "another replica is alive under this id");
    CHECK(w[A].leader_counters().refusals == 1);
    if (failed(w[B])) w.crash(B), w.wipe(B);
    w.stop_twin(B);
    w.ledger.forbid_failure(B);
    CHECK(w.write(A, s, "/b"));
    CHECK(w.verify() == "");
}

TEST_CASE("faults M6: a voter that restarts again and again is not taken for two") {
    World w;
    three(w);
    for (int i = 0; i < 20; i++) {
        w.crash(B);
        w.run(milliseconds(7 * i));
        w.start(B);
        w.run(milliseconds(400 - 13 * i));
    }
    CHECK(w.leader() == A);
    CHECK(w[A].leader_counters().refusals == 0);
    CHECK(w.verify() == "");
}

TEST_CASE("faults M7: another ensemble's voter is dropped and counted") {
    World w;
    three(w);
    World other;
    for (const PeerId id : other.ids()) other.start(id);
    REQUIRE(!other.packets.empty());
    Message message = other.packets.front().message();
    message.ensemble = 8;
    Bytes bytes;
    encode_message(message, bytes);
    const std::uint64_t before = w[message.to].counters().dropped_foreign;
    w[message.to].receive(message.from, bytes);
    w.poll(message.to);
    CHECK(w[message.to].counters().dropped_foreign == before + 1);
    CHECK(w.verify() == "");
}

// The record of an acknowledged write is gone and nothing shows it: taken for a torn tail (D20), or
// the image of yesterday (D23). The leader has heard more from this disk than it has.
TEST_CASE("faults D20 D23: a disk that lost what it acknowledged is refused, and may be wiped") {
    for (const coord::Sequence lost : {1u, 3u, 6u}) {
        CAPTURE(lost);
        World w;
        const SessionId s = three(w);
        for (int i = 0; i < 6; i++) REQUIRE(w.write(A, s, "/n" + std::to_string(i)));
        REQUIRE(in_step(w, {A, B, C}));
        w.crash(B);
        w.roll_back(B, w.disk(B).durable() - lost);
        w.ledger.allow_failure(B);
        w.start(B);
        CHECK(w.run_until([&] { return w[B].status().role == Role::failed; }, seconds(5)));
        CHECK(reason(w, B) == "its storage has lost what it had acknowledged");
        w.crash(B), w.start(B);
        CHECK(w.run_until([&] { return w[B].status().role == Role::failed; }, seconds(5)));
        w.isolate(C);
        const auto call = w.create(A, s, "/more");
        w.run(seconds(2));
        CHECK_FALSE(call->done);  // it counts for nothing
        w.heal();
        w.crash(B), w.wipe(B);
        w.ledger.forbid_failure(B);
        CHECK(w.verify() == "");
        CHECK(are_admitted(w, {A, B, C}));
    }
}

TEST_CASE("faults D23: an image that lacks nothing acknowledged is none of that") {
    World w;
    three(w);
    w.crash(B);
    w.disk(B).roll_back(w.disk(B).durable());
    w.start(B);
    CHECK(in_step(w, {A, B, C}));
    CHECK(w[A].leader_counters().refusals == 0);
    CHECK(w.verify() == "");
}

// -------------------------------------------------------------------------------------------------
// Disks that are damaged

void damage(World& w, PeerId id) {
    REQUIRE(w.disk(id).append("rot") == coord::Errc::ok);
    REQUIRE(w.disk(id).flush() == coord::Errc::ok);
    w.ledger.lost_its_disk(id);
}

TEST_CASE("faults D19: one damaged disk starts over and is admitted; then another node is lost") {
    World w;
    const SessionId s = three(w);
    REQUIRE(w.write(A, s, "/b"));
    w.crash(B);
    const std::uint64_t old = w.disk(B).id();
    damage(w, B);
    w.start(B);
    CHECK(std::string(w[B].status().damage) == "a record in the log is damaged");
    CHECK(w.disk(B).id() != old);
    CHECK_FALSE(w.disk(B).may_found());
    REQUIRE(are_admitted(w, {A, B, C}));
    w.crash(A);
    CHECK(in_step(w, {B, C}));
    CHECK(w.has(B, "/b"));
    CHECK(w.verify() == "");
}

TEST_CASE("faults D19: another node is lost at once: unavailable, and nothing lost") {
    World w;
    only_two_know(w);
    damage(w, B);
    w.start(B);
    CHECK_FALSE(anybody_leads_within(w, seconds(10)));
    w.start(A);
    CHECK(in_step(w, {A, B, C}));
    CHECK(w.verify() == "");
}

TEST_CASE("faults D21: all disks are damaged: they halt, nobody founds, and it says why") {
    World w;
    three(w);
    w.crash_all();
    for (const PeerId id : w.ids()) damage(w, id);
    w.start_all();
    CHECK_FALSE(anybody_leads_within(w, seconds(20)));
    for (const PeerId id : w.ids()) {
        CHECK(std::string(w[id].status().damage) == "a record in the log is damaged");
        CHECK(w[id].status().last == Zxid{});
        CHECK(w[id].status().role != Role::failed);
    }
    CHECK(reason(w, A) == "this storage may not found an ensemble");
}

TEST_SUITE_END();

}  // namespace
