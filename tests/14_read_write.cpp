// Chapter 14: the lock that readers share. A standalone replica in virtual time first; then three
// voters in a simulation.

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

#include "session_rig.hpp"
#include "support.hpp"

namespace {

using coord::Access;
using coord::Bytes;
using coord::BytesView;
using coord::CreateMode;
using coord::Errc;
using coord::Grant;
using coord::milliseconds;
using coord::ReadWriteLock;
using coord::Result;
using coord::seconds;
using coord::Session;
using coord::Sync;
using session_rig::Alone;
using session_rig::Ensemble;

constexpr Access to_read = Access::read;
constexpr Access to_write = Access::write;

std::vector<Bytes> queue(const coord::Replica& replica, BytesView path = "/lock") {
    std::vector<Bytes> names;
    (void)replica.tree().children(path, "", 1000, names);
    return names;
}

// A place in the queue, and what its owner has heard.
struct Place {
    std::vector<Errc> answers, downgrades, losses;
    Grant grant;
    std::unique_ptr<ReadWriteLock> lock;

    explicit Place(const Session& session, BytesView path = "/lock")
        : lock(new ReadWriteLock(session, path)) {
        lock->on_lost([this](Errc error) { losses.push_back(error); });
    }
    coord::OnGranted told(std::vector<Errc>& list) {
        return [this, &list](const Result<Grant>& result) {
            list.push_back(result.error());
            if (result) grant = *result;
        };
    }
    Place& acquire(Access access) { return lock->acquire(access, told(answers)), *this; }
    void downgrade() { lock->downgrade(told(downgrades)); }
    bool is_granted() const { return !answers.empty() && answers.back() == Errc::ok; }
    bool is_silent() const { return answers.empty() && losses.empty(); }
};

using Places = std::vector<std::unique_ptr<Place>>;

// One place for each letter, r or w, that ask in that order.
Places places(const Session& session, const char* letters) {
    Places all;
    for (const char* letter = letters; *letter != 0; letter++) {
        all.push_back(std::make_unique<Place>(session));
        all.back()->acquire(*letter == 'r' ? to_read : to_write);
    }
    return all;
}

// Who holds it, a letter each.
std::string held(const Places& all) {
    std::string letters;
    for (const auto& place : all) letters += place->lock->fencing_token() != 0 ? 'x' : '.';
    return letters;
}

}  // namespace

TEST_SUITE("14 read-write") {

TEST_CASE("read-write: readers share, a writer is alone, in the order of the queue") {
    Alone alone;
    const Places all = places(alone.open().session(), "rrwwrrwr");
    alone.polls(30);
    const char* rounds[] = {"xx......", ".x......", "..x.....", "...x....",
                            "....xx..", ".....x..", "......x.", ".......x"};
    for (std::size_t i = 0; i < all.size(); i++) {
        CHECK(held(all) == rounds[i]);
        for (const auto& place : all) {
            CHECK(place->lock->is_held(alone.now) == (place->lock->fencing_token() != 0));
        }
        all[i]->lock->release();
        alone.polls(30);
    }
    std::uint64_t last = 0;
    for (const auto& place : all) {
        CHECK(place->answers == std::vector<Errc>{Errc::ok});
        CHECK(place->losses.empty());
        CHECK(place->grant.fencing_token > last);  // in the order of the queue
        CHECK(place->grant.fencing_token == place->grant.czxid.value);
        last = place->grant.fencing_token;
    }
    CHECK(queue(alone.replica).empty());
    CHECK(alone.replica.status().watches == 0);
}

TEST_CASE("read-write: nodes are laid out as Curator does") {
    Alone alone;
    const Places all = places(alone.open().session(), "rw");
    alone.polls(30);
    CHECK(all[0]->lock->path() == "/lock");
    const std::vector<Bytes> names = queue(alone.replica);
    REQUIRE(names.size() == 2);
    for (const Bytes& name : names) {
        INFO(name);
        REQUIRE(name.size() == 3 + 36 + 1 + 8 + 10);
        CHECK(name.substr(0, 3) == "_c_");
        const bool is_first = *coord::sequence_of(name) == 0;
        CHECK(name.substr(39) == (is_first ? "-__READ__0000000000" : "-__WRIT__0000000001"));
        CHECK(all[is_first ? 0 : 1]->grant.node == (is_first ? "/lock/" + name : ""));
    }
}

TEST_CASE("read-write: K3, one that goes wakes those alone who wait for it") {
    Alone alone;
    const Places all = places(alone.open().session(), "wrrrrwrr");
    alone.polls(30);
    CHECK(held(all) == "x.......");
    CHECK(alone.replica.status().watches == 15);  // of each its own, and the one before
    std::uint64_t events = alone.replica.counters().events;
    all[2]->lock->release();  // nobody waits for a reader in the middle
    alone.polls(30);
    CHECK(alone.replica.counters().events - events == 1);
    events = alone.replica.counters().events;
    all[4]->lock->release();  // the writer looks for another before it
    alone.polls(30);
    CHECK(alone.replica.counters().events - events == 2);
    events = alone.replica.counters().events;
    all[0]->lock->release();
    alone.polls(30);
    // Its own, two readers that wait, and two that did when they gave up.
    CHECK(alone.replica.counters().events - events == 5);
    CHECK(held(all) == ".x.x....");
    events = alone.replica.counters().events;
    all[5]->lock->release();  // a writer gives up: two readers behind it, who have it at once
    alone.polls(30);
    CHECK(alone.replica.counters().events - events == 3);
    CHECK(held(all) == ".x.x..xx");
}

TEST_CASE("read-write: the order is that of the numbers, not of the names") {
    Alone alone;
    Sync zk = alone.open();
    REQUIRE(zk.create("/lock", ""));
    std::vector<Bytes> nodes;
    for (const char* prefix : {"/lock/zz__WRIT__", "/lock/AA__READ__", "/lock/zz__READ__"}) {
        nodes.push_back(zk.create(prefix, "", CreateMode::ephemeral_sequential)->path);
    }
    Places all = places(zk.session(), "rw");
    alone.polls(30);
    CHECK(held(all) == "..");
    REQUIRE(zk.remove(nodes[0]));
    alone.polls(30);
    CHECK(held(all) == "x.");
    all[0]->lock->release();
    REQUIRE(zk.remove(nodes[1]));
    alone.polls(30);
    CHECK(held(all) == "..");
    REQUIRE(zk.remove(nodes[2]));
    alone.polls(30);
    CHECK(held(all) == ".x");
}

TEST_CASE("read-write: what is no reader's stands in the queue as a writer, a Lock too") {
    Alone alone;
    Sync zk = alone.open();
    coord::Lock lock{zk.session(), "/lock"};
    int granted = 0;
    const auto on_granted = [&](const Result<Grant>& grant) { granted += grant ? 1 : 100; };
    lock.acquire(on_granted);
    Places all = places(zk.session(), "r");
    alone.polls(30);
    CHECK(granted == 1);
    CHECK(held(all) == ".");
    lock.release();
    lock.acquire(on_granted);
    alone.polls(30);
    CHECK(held(all) == "x");
    CHECK(granted == 1);
    all[0]->lock->release();
    alone.polls(30);
    CHECK(granted == 2);
    lock.release();
    for (const char* name : {"x__READ___", "READ", "__READ__-", "_", ""}) {
        const auto made =
            zk.create(Bytes("/lock/").append(name), "", CreateMode::ephemeral_sequential);
        REQUIRE(made);
        all[0]->acquire(to_read);
        alone.polls(30);
        CHECK(held(all) == ".");
        REQUIRE(zk.remove(made->path));
        alone.polls(30);
        CHECK(held(all) == "x");
        all[0]->lock->release();
    }
}

TEST_CASE("read-write: try_acquire and acquire_for, for either") {
    Alone alone;
    const Session session = alone.open().session();
    Place reader{session}, other{session};
    reader.lock->try_acquire(to_read, reader.told(reader.answers));
    alone.polls(30);
    CHECK(reader.is_granted());
    other.lock->try_acquire(to_write, other.told(other.answers));
    alone.polls(30);
    CHECK(other.answers == std::vector<Errc>{Errc::lock_busy});
    other.lock->try_acquire(to_read, other.told(other.answers));
    alone.polls(30);
    CHECK(other.is_granted());
    other.lock->release();
    other.lock->acquire_for(to_write, milliseconds(100), other.told(other.answers));
    alone.polls(30);
    Place last{session};
    last.acquire(to_read);  // behind a writer that waits
    alone.polls(30);
    CHECK(last.is_silent());
    alone.polls(100);
    CHECK(other.answers.back() == Errc::operation_timeout);
    CHECK(last.is_granted());  // and is woken when that gives up
    CHECK(queue(alone.replica).size() == 2);
    last.lock->acquire(to_read, last.told(last.answers));
    alone.polls(30);
    CHECK(last.answers.back() == Errc::bad_arguments);
    other.acquire(to_write);
    alone.polls(30);
    other.lock->cancel();
    alone.polls(30);
    CHECK(other.answers.back() == Errc::cancelled);
    CHECK(queue(alone.replica).size() == 2);
}

// -------------------------------------------------------------------------------------------------
// Downgrade

TEST_CASE("read-write: C19, a downgrade lets readers in, and no writer, at whatever moment") {
    for (int moment = 0; moment < 12; moment++) {
        for (const bool is_paged : {false, true}) {
            INFO("after polls: " << moment << ", in pages: " << is_paged);
            coord::ReplicaOptions options;
            if (is_paged) options.limits.list_max = 1;
            Alone alone{options};
            const Session session = alone.open().session();
            Place holder{session};
            holder.acquire(to_write);
            alone.polls(30);
            const Grant first = holder.grant;
            Places all = places(alone.open().session(), "wrw");
            alone.polls(moment);
            holder.downgrade();
            CHECK(holder.lock->is_held(alone.now));
            alone.polls(60);
            REQUIRE(holder.downgrades == std::vector<Errc>{Errc::ok});
            CHECK(held(all) == "...");
            CHECK(holder.lock->is_held(alone.now));
            CHECK(holder.losses.empty());
            CHECK(holder.grant.node != first.node);
            CHECK(holder.grant.fencing_token == first.fencing_token);  // K5
            CHECK(holder.lock->fencing_token() == first.fencing_token);
            const auto node = alone.replica.tree().find(holder.grant.node);
            REQUIRE(node);
            CHECK(node->stat.czxid == holder.grant.czxid);
            CHECK(holder.grant.czxid > first.czxid);
            CHECK(node->stat.ephemeral_owner == session.id());
            CHECK(coord::sequence_of(holder.grant.node) == coord::sequence_of(first.node));
            CHECK(queue(alone.replica).size() == 4);
            holder.lock->release();
            alone.polls(60);
            CHECK(held(all) == "x..");
            CHECK(all[0]->grant.fencing_token > first.fencing_token);
            all[0]->lock->release();
            alone.polls(60);
            CHECK(held(all) == ".x.");
        }
    }
}

TEST_CASE("read-write: K5, C19, a downgrade is one step: one node goes as the other comes") {
    Alone alone;
    Sync zk = alone.open();
    Place holder{zk.session()};
    holder.acquire(to_write);
    alone.polls(30);
    std::vector<coord::WatchEvent> events;
    REQUIRE(zk.get(holder.grant.node, [&](const coord::WatchEvent& event) {
        events.push_back(event);
    }));
    holder.downgrade();
    alone.polls(30);
    REQUIRE(events.size() == 1);
    CHECK(events[0].type == coord::EventType::deleted);
    CHECK(events[0].zxid == holder.grant.czxid);
}

TEST_CASE("read-write: readers behind a writer that becomes one have it beside it") {
    Alone alone;
    Places all = places(alone.open().session(), "wrrw");
    alone.polls(30);
    CHECK(held(all) == "x...");
    all[0]->downgrade();
    alone.polls(30);
    CHECK(held(all) == "xxx.");
    all[1]->lock->release(), all[2]->lock->release();
    alone.polls(30);
    CHECK(held(all) == "x...");
    all[0]->lock->release();
    alone.polls(30);
    CHECK(held(all) == "...x");
    CHECK(alone.replica.status().watches == 1);
}

TEST_CASE("read-write: pages between whose reads a writer becomes a reader show one of them") {
    // Names that sort before, between and behind those of the two nodes, in pages of one.
    for (int moment = 0; moment < 40; moment++) {
        INFO("after polls: " << moment);
        coord::ReplicaOptions options;
        options.limits.list_max = 1;
        Alone alone{options};
        Sync zk = alone.open();
        Place holder{zk.session()};
        holder.acquire(to_write);
        alone.polls(30);
        REQUIRE(holder.is_granted());
        for (const char* name : {"/lock/!", "/lock/_a", "/lock/_d", "/lock/z"}) {
            REQUIRE(zk.create(name, ""));
        }
        Place writer{alone.open().session()};
        writer.acquire(to_write);
        for (int i = 0; i < moment; i++) alone.poll();
        holder.downgrade();
        alone.polls(60);
        REQUIRE(holder.downgrades == std::vector<Errc>{Errc::ok});
        CHECK(writer.is_silent());
        CHECK(holder.lock->is_held(alone.now));
    }
}

TEST_CASE("read-write: C19, Curator's downgrade, a reader's node of the number, then the removal") {
    Alone alone;
    Sync zk = alone.open();
    REQUIRE(zk.create("/lock", ""));
    const auto writer = zk.create("/lock/_c_1-__WRIT__", "", CreateMode::ephemeral_sequential);
    REQUIRE(writer);
    Places all = places(zk.session(), "wr");
    alone.polls(30);
    const Bytes reader = "/lock/_c_2-__READ__0000000000";
    REQUIRE(zk.create(reader, "", CreateMode::ephemeral));
    REQUIRE(zk.remove(writer->path));
    alone.polls(30);
    CHECK(held(all) == "..");
    REQUIRE(zk.remove(reader));
    alone.polls(30);
    CHECK(held(all) == "x.");
}

TEST_CASE("read-write: writes guarded by a grant, before a downgrade and after it") {
    Alone alone;
    Sync zk = alone.open();
    REQUIRE(zk.create("/data", ""));
    Place holder{zk.session()};
    holder.acquire(to_write);
    alone.polls(30);
    const Session before = holder.grant.guarded(zk.session());
    holder.downgrade();
    std::vector<Errc> answers;
    const auto told = [&](const Result<coord::Stat>& set) { answers.push_back(set.error()); };
    before.set("/data", "late", told);
    alone.polls(30);
    holder.grant.guarded(zk.session()).set("/data", "a reader's", told);
    alone.polls(30);
    CHECK(answers == std::vector<Errc>{Errc::guard_lost, Errc::ok});
    CHECK(zk.get("/data")->bytes == "a reader's");
}

TEST_CASE("read-write: a downgrade of what is not held for writing is bad_arguments") {
    Alone alone;
    const Session session = alone.open().session();
    Place reader{session}, waiter{session};
    reader.downgrade();
    alone.polls(30);
    reader.acquire(to_read);
    reader.downgrade();
    alone.polls(30);
    reader.downgrade();
    waiter.acquire(to_write);
    alone.polls(30);
    waiter.downgrade();
    alone.polls(30);
    CHECK(reader.downgrades == std::vector<Errc>(3, Errc::bad_arguments));
    CHECK(waiter.downgrades == std::vector<Errc>{Errc::bad_arguments});
    CHECK(reader.is_granted());
    CHECK(waiter.is_silent());
    reader.lock->release();
    alone.polls(30);
    waiter.downgrade();
    waiter.downgrade();
    alone.polls(30);
    REQUIRE(waiter.downgrades.size() == 3);
    CHECK((waiter.downgrades[1] == Errc::ok) != (waiter.downgrades[2] == Errc::ok));
    CHECK(waiter.lock->is_held(alone.now));
}

TEST_CASE("read-write: a downgrade that is refused leaves it held for writing") {
    Alone alone;
    Sync zk = alone.open();
    Sync super = alone.open();
    REQUIRE(zk.create("/lock", ""));
    Place holder{zk.session()}, reader{zk.session()};
    holder.acquire(to_write);
    alone.polls(30);
    reader.acquire(to_read);
    alone.polls(30);
    REQUIRE(super.set_acl("/lock", coord::Acl(coord::permission::read, "world", "anyone")));
    for (int i = 0; i < 3; i++) {
        holder.downgrade();
        alone.polls(30);
    }
    CHECK(holder.downgrades == std::vector<Errc>(3, Errc::no_auth));
    CHECK(holder.lock->is_held(alone.now));
    CHECK(holder.losses.empty());
    CHECK(reader.is_silent());
    CHECK(alone.replica.status().watches == 3);  // and its node is watched as it was
}

TEST_CASE("read-write: release, destruction and cancel while a downgrade is under way") {
    for (int moment = 0; moment < 6; moment++) {
        for (const char* how : {"release", "destroy", "cancel"}) {
            INFO(how << " after polls: " << moment);
            Alone alone;
            const Session session = alone.open().session();
            Place holder{session}, writer{session};
            holder.acquire(to_write);
            alone.polls(30);
            writer.acquire(to_write);
            alone.polls(30);
            holder.downgrade();
            alone.polls(moment);
            const std::size_t answered = holder.downgrades.size();
            int released = 0;
            const bool is_cancel = Bytes(how) == "cancel";
            if (is_cancel) holder.lock->cancel();
            if (Bytes(how) == "destroy") holder.lock.reset();
            if (Bytes(how) == "release") {
                holder.lock->release([&](Result<void> done) { released += done ? 1 : 100; });
                CHECK_FALSE(holder.lock->is_held(alone.now));
            }
            alone.polls(30);
            CHECK(holder.losses.empty());
            CHECK(writer.is_granted() == !is_cancel);
            CHECK(queue(alone.replica).size() == (is_cancel ? 2 : 1));
            if (is_cancel) CHECK(holder.downgrades == std::vector<Errc>{Errc::ok});
            if (Bytes(how) == "destroy") CHECK(holder.downgrades.size() == answered);
            if (Bytes(how) != "release") continue;
            CHECK(released == 1);
            const Errc expected = answered == 0 ? Errc::cancelled : Errc::ok;
            CHECK(holder.downgrades == std::vector<Errc>{expected});
            holder.acquire(to_read);
            writer.lock->release();
            alone.polls(30);
            CHECK(holder.answers == std::vector<Errc>(2, Errc::ok));
        }
    }
}

TEST_CASE("read-write: somebody removes the writer's node, or a reader's that it has become") {
    for (int moment = -3; moment < 6; moment++) {
        INFO("after polls: " << moment);
        Alone alone;
        Sync zk = alone.open();
        Sync other = alone.open();
        Place holder{zk.session()}, writer{other.session()};
        holder.acquire(to_write);
        alone.polls(30);
        writer.acquire(to_write);
        alone.polls(30);
        const Bytes node = holder.grant.node;
        if (moment >= 0) holder.downgrade(), alone.polls(moment);
        for (const Bytes& name : queue(alone.replica)) {
            if (*coord::sequence_of(name) == 0) other.session().remove("/lock/" + name, {});
        }
        for (int i = moment; i < -1; i++) alone.poll();
        if (moment < 0) holder.downgrade();
        alone.polls(30);
        CHECK(writer.is_granted() == !holder.losses.empty());
        REQUIRE(holder.downgrades.size() == 1);
        if (holder.losses.empty()) {  // the node that was removed had made way before
            CHECK(holder.downgrades[0] == Errc::ok);
            CHECK(holder.lock->is_held(alone.now));
            CHECK(queue(alone.replica).size() == 2);
            continue;
        }
        CHECK(holder.losses == std::vector<Errc>{Errc::lock_lost});
        CHECK_FALSE(holder.lock->is_held(alone.now));
        CHECK(queue(alone.replica).size() == 1);
        const Errc error = holder.downgrades[0];
        CHECK((error == Errc::ok || error == Errc::lock_lost || error == Errc::bad_arguments));
    }
}

TEST_CASE("read-write: the session, or the replica, ends while a downgrade is under way") {
    for (int moment = 0; moment < 6; moment++) {
        for (const bool is_failure : {false, true}) {
            INFO("after polls: " << moment << ", failed: " << is_failure);
            Alone alone;
            Sync zk = alone.open();
            Place holder{zk.session()};
            holder.acquire(to_write);
            alone.polls(30);
            const bool is_late = moment > 3;
            holder.downgrade();
            alone.polls(moment);
            if (is_failure) alone.disk.fail();
            if (is_failure) zk.session().create("/x", "", {});
            if (!is_failure) zk.session().close();
            alone.polls(30);
            const Errc end = is_failure ? Errc::replica_failed : Errc::session_expired;
            CHECK(holder.losses == std::vector<Errc>{end});
            REQUIRE(holder.downgrades.size() == 1);
            if (is_late) CHECK(holder.downgrades[0] == Errc::ok);
            if (holder.downgrades[0] != Errc::ok) CHECK(holder.downgrades[0] == end);
            CHECK_FALSE(holder.lock->is_held(alone.now));
            if (!is_failure) CHECK(queue(alone.replica).empty());
        }
    }
}

TEST_CASE("read-write: destroyed by the callbacks of a downgrade, each is the last") {
    Alone alone;
    Sync zk = alone.open();
    Place holder{zk.session()};
    holder.acquire(to_write);
    alone.polls(30);
    int calls = 0;
    const auto end = [&] { calls += 1, holder.lock.reset(); };
    SUBCASE("by its answer") {
        holder.lock->downgrade([&](const Result<Grant>& grant) {
            CHECK(grant);
            end();
        });
    }
    SUBCASE("by the loss that comes before its answer") {
        holder.lock->on_lost([&](Errc error) {
            CHECK(error == Errc::session_expired);
            end();
        });
        zk.session().close();
        holder.lock->downgrade([&](const Result<Grant>&) { calls += 100; });
    }
    alone.polls(30);
    CHECK(calls == 1);
    CHECK(queue(alone.replica).empty());
}

TEST_CASE("read-write: attached elsewhere, holders and waiters of either kind hear it") {
    Alone alone;
    Sync zk = alone.open();
    Places all = places(zk.session(), "wrw");
    alone.polls(30);
    all[0]->downgrade();
    const auto moved = Sync::attach(alone.replica, zk.session().id(), zk.session().password(),
                                    alone.pump());
    REQUIRE(moved);
    alone.polls(30);
    CHECK(all[0]->losses == std::vector<Errc>{Errc::session_moved});
    REQUIRE(all[0]->downgrades.size() == 1);
    CHECK(all[2]->answers.back() == Errc::session_moved);
    // The nodes are the session's still; who has it now may remove them.
    const std::vector<Bytes> names = queue(alone.replica);
    CHECK(names.size() == 3);
    Sync now{*moved, alone.pump()};
    for (const Bytes& name : names) REQUIRE(now.remove("/lock/" + name));
}

// -------------------------------------------------------------------------------------------------
// Three voters

TEST_CASE("read-write, three voters: a holder that is cut off, either kind, and who waits") {
    for (const Access access : {to_read, to_write}) {
        Ensemble ensemble;
        const std::uint32_t at = ensemble.follower(0), elsewhere = ensemble.follower(1);
        Place holder{ensemble.open(at, seconds(2)).session()};
        Place reader{ensemble.open(elsewhere, seconds(60)).session()};
        Place writer{ensemble.open(elsewhere, seconds(60)).session()};
        holder.acquire(access);
        ensemble.sim.run_for(seconds(1));
        REQUIRE(holder.is_granted());
        writer.acquire(to_write);
        ensemble.sim.run_for(seconds(1));
        reader.acquire(to_read);
        ensemble.sim.isolate(at);
        REQUIRE(ensemble.sim.run_until([&] { return writer.is_granted(); }, seconds(10)));
        CHECK_FALSE(holder.lock->is_held(ensemble.sim.clock(at)));  // and it knows
        CHECK(reader.is_silent());
        writer.downgrade();
        REQUIRE(ensemble.sim.run_until([&] { return reader.is_granted(); }, seconds(10)));
        ensemble.sim.heal();
        ensemble.sim.run_for(seconds(5));
        CHECK(holder.losses == std::vector<Errc>{Errc::session_expired});
        CHECK(writer.lock->is_held(ensemble.sim.clock(elsewhere)));
    }
}

TEST_CASE("read-write, three voters: a downgrade that the leader's death delays is done once") {
    for (std::uint64_t seed = 1; seed <= 12; seed++) {
        INFO("seed " << seed);
        Ensemble ensemble{seed};
        const std::uint32_t at = ensemble.follower(0);
        const Session session = ensemble.open(at, seconds(20)).session();
        Place holder{session}, writer{session};
        holder.acquire(to_write);
        ensemble.sim.run_for(seconds(1));
        writer.acquire(to_write);
        ensemble.sim.run_for(seconds(1));
        REQUIRE(holder.is_granted());
        ensemble.sim.crash_at_send(ensemble.leader(), static_cast<std::uint32_t>(seed % 5));
        holder.downgrade();
        REQUIRE(ensemble.sim.run_until([&] { return !holder.downgrades.empty(); }, seconds(20)));
        CHECK(holder.downgrades == std::vector<Errc>{Errc::ok});
        CHECK(holder.losses.empty());
        CHECK(writer.is_silent());
        CHECK(queue(ensemble.sim.replica(at)).size() == 2);
        holder.lock->release();
        REQUIRE(ensemble.sim.run_until([&] { return writer.is_granted(); }, seconds(20)));
        CHECK(queue(ensemble.sim.replica(at)).size() == 1);
    }
}

TEST_CASE("read-write, three voters: C17, a waiter whose session expires is not granted it") {
    for (const Access access : {to_read, to_write}) {
        Ensemble ensemble;
        const std::uint32_t at = ensemble.follower(0);
        Place holder{ensemble.open(ensemble.leader(), seconds(60)).session()};
        Place waiter{ensemble.open(at, seconds(2)).session()};
        Place last{ensemble.open(ensemble.follower(1), seconds(60)).session()};
        holder.acquire(to_write);
        ensemble.sim.run_for(seconds(1));
        waiter.acquire(access);
        ensemble.sim.run_for(seconds(1));
        last.acquire(to_write);
        ensemble.sim.run_for(seconds(1));
        ensemble.sim.pause(at);
        ensemble.sim.run_for(seconds(6));
        holder.lock->release();
        ensemble.sim.run_for(seconds(2));
        CHECK(last.is_granted());
        ensemble.sim.resume(at);
        ensemble.sim.run_for(seconds(5));
        CHECK(waiter.answers == std::vector<Errc>{Errc::session_expired});
        CHECK(waiter.losses.empty());
    }
}

}  // TEST_SUITE
