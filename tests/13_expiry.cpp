// Chapters 10, 12 and 13: sessions that are not heard of any more. How they end over changes of
// leaders, and what that costs a poll, however many end at once.

#include "session_rig.hpp"

namespace {

using coord::CreateMode;
using coord::milliseconds;
using coord::PeerId;
using coord::Session;
using coord::SessionState;
using coord::seconds;
using coord::Sync;
using session_rig::Ensemble;

coord::SimulationOptions five(std::uint64_t seed) {
    coord::SimulationOptions options;
    options.seed = seed;
    options.voters = 5;
    return options;
}

// A session at a replica that dies, and one at another that lives on, while leaders come and go.
struct Changes {
    Ensemble all;
    std::uint32_t dead_home = 0, live_home = 0;
    Sync dead, live;
    PeerId crashed;

    explicit Changes(std::uint64_t seed)
        : all(five(seed)), dead_home(all.follower(0)), live_home(all.follower(1)),
          dead(all.open(dead_home, seconds(4))), live(all.open(live_home, seconds(4))) {
        REQUIRE(dead.create("/dead", "", CreateMode::ephemeral));
        REQUIRE(live.create("/live", "", CreateMode::ephemeral));
        all.sim.crash(dead_home);
    }

    // The leader dies; the one before it comes back.
    void change() {
        const PeerId leader = all.sim.leader();
        REQUIRE(leader != PeerId{});
        if (leader.value == live_home) return;  // this one stays
        if (crashed != PeerId{}) all.sim.restart(crashed);
        all.sim.run_for(milliseconds(200));
        all.sim.crash(leader);
        crashed = leader;
        const auto led = [&] { return all.sim.leader() != PeerId{}; };
        REQUIRE(all.sim.run_until(led, seconds(10)));
    }
};

}  // namespace

TEST_SUITE("13 expiry") {

TEST_CASE("C7 D7 leaders change before a timeout is over: who is dead goes, who lives stays") {
    for (std::uint64_t seed = 1; seed <= 5; seed++) {
        CAPTURE(seed);
        Changes run(seed);
        int changes = 0;
        while (run.all.sees(run.live_home, "/dead") && changes < 12) {
            run.all.sim.run_for(milliseconds(3200));  // 0.8 of it
            run.change();
            changes += 1;
        }
        CHECK(changes <= 2);
        for (int i = 0; i < 8; i++) {
            run.change();
            run.all.sim.run_for(milliseconds(3200));
        }
        CHECK(run.all.sees(run.live_home, "/live"));
        CHECK(run.live.session().state() == SessionState::connected);
        CHECK_FALSE(run.all.sees(run.live_home, "/dead"));
    }
}

TEST_CASE("C7 leaders change ever so often: nobody is ended at once, or kept for ever") {
    Changes run(9);
    int changes = 0;
    while (run.all.sees(run.live_home, "/dead") && changes < 60) {
        run.all.sim.run_for(milliseconds(1300));  // a third of it
        run.change();
        changes += 1;
    }
    CHECK(changes >= 2);
    CHECK(changes <= 12);
    run.all.sim.run_for(seconds(2));
    CHECK(run.all.sees(run.live_home, "/live"));
    CHECK(run.live.session().state() == SessionState::connected);
}

// What a new leader goes on from is what is true: a session that was silent under one leader, and
// heard of again, has all of its timeout under the next.
TEST_CASE("Z13 a session that was heard of again has a whole timeout under the next leader") {
    for (std::uint64_t seed = 1; seed <= 10; seed++) {
        CAPTURE(seed);
        Ensemble all(five(seed));
        const std::uint32_t home = all.follower(0);
        const Sync zk = all.open(home, seconds(8));
        all.sim.isolate(home);
        all.sim.run_for(seconds(6) + milliseconds(static_cast<std::int64_t>(seed) * 100));
        const auto silent_ms = [&] {
            const coord::Machine& machine = all.sim.replica(all.leader()).machine();
            return machine.find_session(zk.session().id())->silent_ms;
        };
        CHECK(silent_ms() == 6000);
        all.sim.heal();
        const auto certain = [&] {
            return zk.session().certain_until() > all.sim.clock(home) + seconds(6);
        };
        REQUIRE(all.sim.run_until(certain, seconds(2)));
        CHECK(silent_ms() == 0);
        const coord::Time until = all.sim.when(home, zk.session().certain_until());
        all.sim.isolate(home);
        all.sim.crash(all.sim.leader());
        const auto led = [&] { return all.sim.leader() != PeerId{}; };
        REQUIRE(all.sim.run_until(led, seconds(2)));
        const auto lives = [&] {
            const coord::Machine& machine = all.sim.replica(all.leader()).machine();
            return machine.find_session(zk.session().id()) != nullptr;
        };
        while (lives() && all.sim.now() < until + seconds(5)) all.sim.run_for(milliseconds(50));
        CHECK(all.sim.now() > until);
        CHECK_FALSE(lives());
    }
}

TEST_CASE("C8 D8 many sessions end at once: each poll does a bounded part of it, others go on") {
    Ensemble all;
    const std::uint32_t home = all.follower(0), other = all.follower(1);
    const Sync zk = all.open(other, seconds(30));
    REQUIRE(zk.create("/d", ""));
    std::size_t open = 0, created = 0;
    const std::size_t sessions = 1000, nodes = 20;
    for (std::size_t i = 0; i < sessions; i++) {
        Session::open(all.sim.replica(home), {seconds(4)}, [&](coord::Result<Session> opened) {
            REQUIRE(opened);
            open += 1;
            for (std::size_t k = 0; k < nodes; k++) {
                opened->create("/d/", "", CreateMode::ephemeral_sequential,
                               [&](const coord::Result<coord::Created>& r) {
                                   REQUIRE(r);
                                   created += 1;
                               });
            }
        });
    }
    const auto made = [&] { return created == sessions * nodes; };
    REQUIRE(all.sim.run_until(made, seconds(60)));
    all.sim.crash(home);
    coord::Replica& leader = all.sim.replica(all.leader());
    const coord::Machine& machine = leader.machine();
    std::uint64_t work = machine.tree().work(), polls = leader.counters().polls, most = 0;
    std::size_t answered = 0, asked = 0, waits_most = 0;
    coord::Time asked_at = all.sim.now();
    const coord::Time begin = all.sim.now();
    while (machine.sessions().size() > 1 && all.sim.now() < begin + seconds(60)) {
        if (asked == answered) {
            asked += 1, asked_at = all.sim.now();
            zk.session().set("/d", "x", [&](coord::Result<coord::Stat> r) {
                REQUIRE(r);
                answered += 1;
                const std::int64_t waited = (all.sim.now() - asked_at).ns / 1000000;
                waits_most = (std::max)(waits_most, static_cast<std::size_t>(waited));
            });
        }
        REQUIRE(all.sim.step());
        if (leader.counters().polls == polls) continue;
        CHECK(leader.counters().polls == polls + 1);
        polls = leader.counters().polls;
        most = (std::max)(most, machine.tree().work() - work);
        work = machine.tree().work();
    }
    CHECK(machine.sessions().size() == 1);
    CHECK(leader.leader_counters().sessions_expired == sessions);
    CHECK(most <= 1024 + nodes * 4);
    CHECK(most >= 512);         // and no poll is wasted
    CHECK(waits_most < 1000);   // virtual: nobody waits for all of the ends
    CHECK(answered > 10);
    REQUIRE(zk.sync());
    CHECK(zk.children("/d")->names.empty());
}

TEST_CASE("Z13 a short timeout costs an idle log nothing, and the leases of others nothing") {
    for (const int where : {0, 1, 2}) {  // at another follower, at the same, at the leader
        for (const int short_ms : {200, 300, 400, 500}) {
            CAPTURE(where);
            CAPTURE(short_ms);
            coord::SimulationOptions slow;
            slow.network.latency_min = milliseconds(25);
            slow.network.latency_max = milliseconds(35);
            Ensemble all(slow);
            const std::uint32_t home = all.follower(0), other = all.follower(1);
            const Sync zk = all.open(other, seconds(4));
            const std::uint32_t at[] = {home, other, all.leader()};
            const Sync brief = all.open(at[where], milliseconds(short_ms));
            coord::Replica& leader = all.sim.replica(all.leader());
            const std::uint64_t before = leader.leader_counters().proposals;
            coord::Duration least = seconds(4);
            for (int i = 0; i < 500; i++) {
                all.sim.run_for(milliseconds(10));
                least = (std::min)(least, zk.session().certain_until() - all.sim.clock(other));
            }
            CHECK(least > seconds(3));
            CHECK(leader.leader_counters().proposals == before);
            CHECK(brief.session().state() == SessionState::connected);
        }
    }
}

TEST_CASE("C8 a replica alone ends all whose clients are gone without a pause between its polls") {
    coord::MemoryStorage disk;
    coord::Time now{1000000000};
    std::size_t open = 0;
    {
        coord::Replica before({}, disk);
        for (int i = 0; i < 3000; i++) {
            before.open_session({seconds(1)}, [&](coord::Result<coord::SessionId> opened) {
                REQUIRE(opened);
                open += 1;
            });
        }
        while (open < 3000) before.poll(now = now + milliseconds(1));
    }
    coord::Replica again({}, disk);  // nobody holds them any more
    for (int i = 0; i < 100; i++) again.poll(now = now + milliseconds(1));
    REQUIRE(again.machine().sessions().size() == 3000);
    const coord::Time begin = now;
    while (again.machine().sessions().size() > 0 && now < begin + seconds(60)) {
        now = (std::max)(now, again.next_deadline());
        again.poll(now);
    }
    CHECK(now - begin < seconds(2));  // its own time: the timeout, and hardly more
}

// A list of the sessions that live there comes before the leader knows any: it does not count, and
// is not confirmed.
TEST_CASE("Z13 P11 what a leader heard before it knew the sessions is no lease") {
    int ends = 0;
    for (std::uint64_t seed = 1; seed <= 30; seed++) {
        CAPTURE(seed);
        coord::SimulationOptions options = five(seed);
        options.network.latency_min = milliseconds(10);
        options.network.latency_max = milliseconds(40);
        options.disk.flush_min = milliseconds(5), options.disk.flush_max = milliseconds(80);
        Ensemble all(options);
        const std::uint32_t home = all.follower(0);
        const Sync zk = all.open(home, seconds(8));
        all.sim.isolate(home);
        all.sim.run_for(milliseconds(6500));
        const PeerId old = all.sim.leader();
        all.sim.crash(old);
        all.sim.heal();
        for (std::uint32_t i = 1; i <= 5; i++) {
            if (all.sim.is_running(i)) all.sim.forget(i, old);
        }
        const auto led = [&] { return all.sim.leader() != PeerId{}; };
        REQUIRE(all.sim.run_until(led, seconds(10)));
        if (all.sim.leader().value == home) continue;
        all.sim.cut(home, all.sim.leader());  // one way, from now on
        coord::Time until;
        for (int i = 0; i < 10000; i++) {
            all.sim.run_for(milliseconds(1));
            const coord::Time certain = zk.session().certain_until();
            if (certain != coord::Time{}) until = (std::max)(until, all.sim.when(home, certain));
            if (all.sim.leader() == PeerId{}) continue;
            const coord::Machine& machine = all.sim.replica(all.sim.leader()).machine();
            if (machine.find_session(zk.session().id()) == nullptr) break;
        }
        CHECK(all.sim.now() >= until);
        ends += 1;
    }
    CHECK(ends > 10);
}

}  // TEST_SUITE
