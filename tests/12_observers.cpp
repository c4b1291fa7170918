// Chapters 10 to 13: replicas that are no voters, in a simulation. They follow a leader, serve
// sessions, and stand in no quorum. Voters are 1 to n, and those who observe come after them.

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "coord.hpp"
#include "observers_rig.hpp"
#include "support.hpp"

namespace {

using coord::Bytes;
using coord::BytesView;
using coord::CreateMode;
using coord::Errc;
using coord::milliseconds;
using coord::PeerId;
using coord::Role;
using coord::seconds;
using coord::Session;
using coord::SessionState;
using coord::Simulation;
using coord::SimulationOptions;
using coord::Sync;
using coord::Time;
using coord::Zxid;

using observers::of;
using observers::World;
using observers::write_some;

}  // namespace

TEST_SUITE("12 observers") {

TEST_CASE("who is no voter observes: its role, whom it follows, and what the leader knows of it") {
    World w(3, 2);
    for (std::uint32_t id = 1; id <= 5; id++) {
        const coord::ReplicaStatus status = w.sim.replica(id).status();
        CAPTURE(id);
        CHECK(status.serving);
        CHECK(status.leader == w.sim.leader());
        CHECK((status.role == Role::observing) == (id > 3));
        CHECK(status.observers == (id == w.leader() ? 2u : 0u));
        CHECK(status.admitted == (id <= 3));  // its storage is in no table
        CHECK(status.storage != 0);
    }
    CHECK(w.sim.replica(1).machine().voters().places().size() == 3);
}

TEST_CASE("a session at an observer does all that sessions do") {
    World w(3, 1);
    const Sync zk = w.open(4);
    const Sync other = w.open(1);
    REQUIRE(zk.create("/a", "1"));
    REQUIRE(zk.create("/a/mine", "", CreateMode::ephemeral));
    CHECK(w.sees(4, "/a/mine"));
    CHECK(zk.create("/a", "1").error() == Errc::node_exists);
    std::vector<std::string> events;
    zk.session().exists("/b",
                        [&](const coord::WatchEvent& event) { events.push_back(event.path); }, {});
    REQUIRE(other.create("/b", "2"));
    REQUIRE(zk.sync());
    REQUIRE(zk.get("/b"));
    CHECK(zk.get("/b")->bytes == "2");
    CHECK(events == std::vector<std::string>{"/b"});
    const coord::Multi multi = zk.multi(
        {coord::Op::set("/a", "3"), coord::Op::remove("/b"), coord::Op::create("/c", "")});
    CHECK(multi.error == Errc::ok);
    CHECK(zk.session().state() == SessionState::connected);
    REQUIRE(zk.session().certain_until() > w.sim.clock(4));
    REQUIRE(zk.close());
    REQUIRE(other.sync());
    CHECK_FALSE(other.exists("/a/mine"));
    w.are_alike();
}

TEST_CASE("a sync at an observer, and then a read, sees every write that had ended before") {
    World w(3, 2);
    const Sync here = w.open(4), there = w.open(5), at_leader = w.open(w.leader());
    REQUIRE(at_leader.create("/x", "0"));
    for (int i = 1; i <= 30; i++) {
        const Bytes value = std::to_string(i);
        REQUIRE((i % 2 == 0 ? there : at_leader).set("/x", value));
        REQUIRE(here.sync());
        CHECK(here.get("/x")->bytes == value);
    }
}

TEST_CASE("a session goes from an observer to a voter and back, and its ephemerals with it") {
    World w(3, 1);
    const Sync zk = w.open(4);
    REQUIRE(zk.create("/mine", "", CreateMode::ephemeral));
    Session before = zk.session();
    for (const std::uint32_t at : {1u, 4u, 2u, 4u}) {
        const auto attached =
            Sync::attach(w.sim.replica(at), before.id(), before.password(), w.sim.pump());
        REQUIRE(attached);
        CHECK(w.comes_true([&] { return before.state() == SessionState::moved; }));
        before = *attached;
        REQUIRE(Sync(before, w.sim.pump()).set("/mine", std::to_string(at)));
    }
    w.are_alike();
    CHECK(w.sees(1, "/mine"));
}

TEST_CASE("Z15 voters do not notice whether there are observers, and these alone decide nothing") {
    World w(3, 4);
    const Sync zk = w.open(w.leader());
    for (std::uint32_t id = 4; id <= 7; id++) w.sim.isolate(id);
    const Time begin = w.sim.now();
    write_some(zk, 20);
    CHECK(w.sim.now() - begin < milliseconds(100));
    w.sim.heal();
    REQUIRE(w.comes_true([&] { return w.all_serve(); }));
    w.are_alike();
    // The leader with all observers, and without the voters.
    const std::uint32_t old = w.leader();
    for (std::uint32_t id = 1; id <= 3; id++) {
        if (id != old) w.sim.crash(id);
    }
    bool done = false;
    w.sim.replica(old).submit(zk.session().id(), [&] {
        coord::Request request;
        request.kind = coord::Request::Kind::create, request.path = "/never";
        request.done = coord::OnCreated([&](const coord::Result<coord::Created>&) { done = true; });
        return request;
    }());
    w.sim.run_for(seconds(3));
    CHECK_FALSE(done);
    for (std::uint32_t id = 1; id <= 7; id++) {
        CHECK_FALSE(w.sees(id, "/never"));
        CHECK_FALSE(w.serves(id));
    }
    CHECK(w.sim.replica(4).status().role == Role::looking);
    for (std::uint32_t id = 1; id <= 3; id++) {
        if (!w.sim.is_running(id)) w.sim.restart(id);
    }
    REQUIRE(w.comes_true([&] { return w.all_serve() && done; }));
    w.are_alike();
}

TEST_CASE("E3 observers are never elected, however many they are and whatever they have") {
    World w(3, 6);
    write_some(w.open(9), 10);
    w.sim.run_for(seconds(1));
    for (std::uint32_t id = 1; id <= 3; id++) w.sim.crash(id);
    w.sim.run_for(seconds(5));
    for (std::uint32_t id = 4; id <= 9; id++) {
        CHECK(w.role(id) == Role::looking);
        CHECK(Bytes(w.sim.replica(id).status().reason) == "the leader is silent");
    }
    w.sim.restart(1);
    w.sim.run_for(seconds(5));
    CHECK_FALSE(w.has_leader());
    w.sim.restart(2);
    REQUIRE(w.comes_true([&] { return w.has_leader() && w.serves(4) && w.serves(9); }));
    CHECK(w.leader() <= 3);
}

TEST_CASE("observers follow the next leader, and their sessions with them") {
    World w(3, 2);
    const Sync zk = w.open(4, seconds(20)), other = w.open(5, seconds(20));
    REQUIRE(zk.create("/mine", "", CreateMode::ephemeral));
    for (int round = 0; round < 4; round++) {
        const std::uint32_t old = w.leader();
        w.sim.crash(old);
        write_some(zk, 3), write_some(other, 3);
        CHECK(w.leader() != old);
        w.sim.restart(old);
        REQUIRE(w.comes_true([&] { return w.all_serve(); }));
    }
    CHECK(w.sees(4, "/mine"));
    CHECK(w.sees(4, "/n-0000000023"));
    w.are_alike();
}

TEST_CASE("an observer that crashes goes on from what it has; one that was wiped learns all") {
    SimulationOptions options = of(3, 2);
    options.replica.snapshot_every_entries = 20;
    options.replica.log_entries_kept = 5;
    World w(options);
    const Sync zk = w.open(1, seconds(60));
    write_some(zk, 10);
    w.are_alike();
    SUBCASE("it was away for a short time") {
        w.sim.crash(4);
        write_some(zk, 2);
        w.sim.restart(4);
        CHECK_FALSE(w.sees(4, "/n-0000000001"));  // it does not know that it is committed
        REQUIRE(w.comes_true([&] { return w.all_serve(); }));
        w.are_alike();
        CHECK(w.sim.replica(4).counters().snapshots_installed == 0);
    }
    SUBCASE("it was away for long") {
        w.sim.crash(4);
        w.sim.run_for(seconds(1));  // the log is not kept for it any more
        write_some(zk, 100);
        w.sim.restart(4);
        REQUIRE(w.comes_true([&] { return w.all_serve(); }));
        w.are_alike();
        CHECK(w.sim.replica(4).counters().snapshots_installed == 1);
    }
    SUBCASE("it has lost its storage, and none that counts") {
        w.sim.crash(4);
        w.sim.storage(4) = coord::MemoryStorage{};
        write_some(zk, 100);
        w.sim.restart(4);
        REQUIRE(w.comes_true([&] { return w.all_serve(); }));
        w.are_alike();
        CHECK(w.sim.replica(4).counters().snapshots_installed == 1);
        CHECK_FALSE(w.sim.replica(4).status().admitted);
        CHECK(w.sim.replica(1).machine().voters().places().size() == 3);
    }
}

TEST_CASE("an observer takes snapshots of its own, and has all of it after a start") {
    SimulationOptions options = of(3, 1);
    options.replica.snapshot_every_entries = 10;
    World w(options);
    write_some(w.open(1, seconds(60)), 50);
    w.are_alike();
    CHECK(w.sim.replica(4).counters().snapshots_taken >= 3);
    w.sim.isolate(4);
    w.sim.crash(4);
    w.sim.restart(4);
    CHECK(w.sees(4, "/n-0000000030"));  // by itself
    w.sim.heal();
    REQUIRE(w.comes_true([&] { return w.all_serve(); }));
    w.are_alike();
}

TEST_CASE("an observer that is cut off says so, lets its sessions wait, and reads what it has") {
    World w(3, 1);
    const Sync zk = w.open(4, seconds(3));
    REQUIRE(zk.create("/mine", "x", CreateMode::ephemeral));
    w.sim.run_for(seconds(1));
    const Time certain = w.sim.when(4, zk.session().certain_until());
    CHECK(certain > w.sim.now() + seconds(2));
    w.sim.isolate(4);
    w.sim.run_for(seconds(1));
    CHECK(zk.session().state() == SessionState::suspended);
    CHECK(w.role(4) == Role::looking);
    CHECK(zk.get("/mine")->bytes == "x");
    CHECK(w.sim.when(4, zk.session().certain_until()) <= certain + milliseconds(500));
    CHECK(w.sees(w.leader(), "/mine"));
    REQUIRE(w.comes_true([&] { return !w.sees(w.leader(), "/mine"); }));
    CHECK(w.sim.now() >= certain);  // P10
    w.sim.heal();
    REQUIRE(w.comes_true([&] { return zk.session().state() == SessionState::expired; }));
}

TEST_CASE("a voter alone, and those that observe it") {
    World w(1, 3);
    const Sync zk = w.open(2);
    write_some(zk, 10);
    w.are_alike();
    w.sim.crash(1);
    w.sim.run_for(seconds(2));
    CHECK_FALSE(w.serves(2));
    CHECK(zk.session().state() == SessionState::suspended);
    w.sim.restart(1);
    REQUIRE(w.comes_true([&] { return w.all_serve(); }));
    write_some(zk, 10);
    w.are_alike();
}

TEST_CASE("Z15 a leader takes on so many and no more; a place that is free is taken") {
    SimulationOptions options = of(3, 4);
    options.replica.limits.observers_max = 3;
    Simulation sim(options);
    const auto serving = [&] {
        std::uint32_t count = 0;
        for (std::uint32_t id = 4; id <= 7; id++) {
            count += sim.is_running(id) && sim.replica(id).status().serving ? 1u : 0u;
        }
        return count;
    };
    REQUIRE(sim.run_until([&] { return serving() == 3; }, seconds(10)));
    sim.run_for(seconds(3));
    CHECK(serving() == 3);
    CHECK(sim.replica(sim.leader()).status().observers == 3);
    for (std::uint32_t id = 4; id <= 7; id++) {
        if (!sim.replica(id).status().serving) continue;
        sim.crash(id);
        break;
    }
    REQUIRE(sim.run_until([&] { return serving() == 3; }, seconds(10)));
    CHECK(sim.replica(sim.leader()).status().observers == 3);
}

TEST_CASE("a hundred observe: they all have all, and voters are not slower for it") {
    SimulationOptions options = of(3, 100);
    World w(options);
    const Sync zk = w.open(w.leader(), seconds(60));
    write_some(zk, 1);
    w.sim.run_for(seconds(1));
    const Time begin = w.sim.now();
    write_some(zk, 50);
    CHECK(w.sim.now() - begin < milliseconds(60));  // in virtual time: a round between voters each
    w.are_alike();
    CHECK(w.sim.replica(w.leader()).status().observers == 100);
    const Sync far_away = w.open(103);
    REQUIRE(far_away.create("/from-afar", ""));
    w.are_alike();
}

TEST_CASE("an observer whom the leader cannot help asks once a heartbeat, and not at once again") {
    World w(3, 1);
    write_some(w.open(1, seconds(60)), 20);
    w.are_alike();
    // The voters begin anew, with nothing; what it has is more, and not theirs.
    for (std::uint32_t id = 1; id <= 3; id++) {
        w.sim.crash(id);
        w.sim.storage(id) = coord::MemoryStorage{};
    }
    for (std::uint32_t id = 1; id <= 3; id++) w.sim.restart(id);
    REQUIRE(w.comes_true([&] { return w.serves(1) && w.serves(2) && w.serves(3); }));
    w.sim.run_for(seconds(2));
    const std::uint64_t before = w.sim.replica(4).counters().elections;
    w.sim.run_for(seconds(2));
    CHECK(w.sim.replica(4).counters().elections <= before + 20);
    CHECK_FALSE(w.serves(4));
}

TEST_CASE("a damaged storage of an observer starts over, also where there is but one voter") {
    for (const std::uint32_t voters : {1u, 3u}) {
        World w(voters, 1);
        const std::uint32_t id = voters + 1;
        write_some(w.open(1, seconds(60)), 20);
        w.are_alike();
        w.sim.crash(id);
        REQUIRE(w.sim.storage(id).append("no record") == Errc::ok);
        REQUIRE(w.sim.storage(id).flush() == Errc::ok);
        w.sim.restart(id);
        CHECK(Bytes(w.sim.replica(id).status().damage) == "a record in the log is damaged");
        REQUIRE(w.comes_true([&] { return w.all_serve(); }));
        w.are_alike();
    }
}

}  // TEST_SUITE
