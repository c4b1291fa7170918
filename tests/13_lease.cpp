// Chapters 7 and 10 to 13: the lease under which a leader answers linearizable reads at once. An
// ensemble whose replicas have clocks of their own, each with another rate.

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "coord.hpp"
#include "paper/harness.hpp"
#include "support.hpp"

namespace {

using coord::BytesView;
using coord::Data;
using coord::Duration;
using coord::Errc;
using coord::microseconds;
using coord::milliseconds;
using coord::PeerId;
using coord::Result;
using coord::seconds;
using coord::Session;
using coord::Simulation;
using coord::SimulationOptions;
using coord::Time;
using coord::Zxid;

const Duration length = milliseconds(300);
const Duration silence = coord::Timing{}.silence;

SimulationOptions with_lease(Duration lease, std::uint32_t voters = 3, std::uint64_t seed = 1) {
    SimulationOptions options;
    options.voters = voters, options.seed = seed;
    options.replica.leader_lease = lease;
    options.network.latency_min = options.network.latency_max = milliseconds(1);
    return options;
}

// Watches that nobody is established while another one would still answer, by its own clock.
struct Ensemble : coord::ReplicaObserver {
    Simulation sim;
    int overlaps = 0;
    int established = 0;

    explicit Ensemble(const SimulationOptions& options) : sim(options) { sim.set_observer(this); }
    void on_established(PeerId id, std::uint32_t epoch, Zxid) override {
        established += 1;
        for (std::uint32_t other = 1; other <= sim.size(); other++) {
            if (PeerId{other} == id || !sim.is_running(other)) continue;
            if (sim.replica(other).status().epoch < epoch && lease_left(other) > Duration{}) {
                overlaps += 1;
            }
        }
    }
    Duration lease_left(Simulation::Which which) {
        const coord::Replica& replica = sim.replica(which);
        const Duration left = replica.status().lease_left;
        if (left == Duration{}) return left;
        return (std::max)(replica.now() + left - sim.clock(which), Duration{});
    }
    bool all_serve() {
        for (std::uint32_t id = 1; id <= sim.size(); id++) {
            if (!sim.is_running(id) || !sim.replica(id).status().serving) return false;
        }
        return true;
    }
    PeerId settle() {
        REQUIRE(sim.run_until([this] { return all_serve(); }, seconds(20)));
        sim.run_for(milliseconds(250));
        return sim.leader();
    }
    std::vector<PeerId> others(PeerId one) {
        std::vector<PeerId> all;
        for (std::uint32_t id = 1; id <= sim.size(); id++) {
            if (PeerId{id} != one) all.push_back(PeerId{id});
        }
        return all;
    }
    Session session(Simulation::Which at) {
        coord::SessionOptions options;
        options.timeout = seconds(60);
        Result<Session> opened{Errc::too_many};
        bool done = false;
        Session::open(sim.replica(at), options, [&](Result<Session> one) {
            opened = one, done = true;
        });
        REQUIRE(sim.run_until([&] { return done; }, seconds(20)));
        REQUIRE(opened);
        return *opened;
    }
    void write(Session session, BytesView data) {
        bool done = false, worked = false;
        session.create_or_set("/x", data, [&](Result<coord::Created> made) {
            done = true, worked = bool(made);
        });
        REQUIRE(sim.run_until([&] { return done; }, seconds(20)));
        REQUIRE(worked);
    }
    // One linearizable read. RETURNS how long it took; its data in read.
    Duration time_of_read(Session session, coord::Bytes& read) {
        bool done = false;
        const Time begin = sim.now();
        session.linearizable().get("/x", [&](Result<Data> data) {
            done = true, read = data ? data->bytes : coord::Bytes("error");
        });
        REQUIRE(sim.run_until([&] { return done; }, seconds(20)));
        return sim.now() - begin;
    }
    void hint(PeerId gone) {
        for (const PeerId id : others(gone)) {
            if (sim.is_running(id)) sim.forget(id, gone);
        }
    }
    // Cuts the leader off, and lets the others know; they elect another one.
    PeerId replace(PeerId leader) {
        sim.isolate(leader);
        hint(leader);
        REQUIRE(sim.run_until(
            [&] { return sim.leader() != leader && sim.leader() != PeerId{}; }, seconds(10)));
        return sim.leader();
    }
};

}  // namespace

TEST_SUITE("13 lease") {

TEST_CASE("what a linearizable read takes: nothing at the leader, and one way there and back") {
    for (const bool has_one : {false, true}) {
        CAPTURE(has_one);
        Ensemble e(with_lease(has_one ? length : Duration{}));
        const PeerId leader = e.settle();
        const PeerId follower = e.others(leader)[0];
        Session at_leader = e.session(leader), at_follower = e.session(follower);
        e.write(at_leader, "1");
        e.sim.run_for(milliseconds(100));
        coord::Bytes read;
        const Duration one_way = milliseconds(1), slack = microseconds(100);
        for (int i = 0; i < 50; i++) {
            const Duration own = e.time_of_read(at_leader, read);
            CHECK(read == "1");
            CHECK(own <= (has_one ? slack : one_way * 2 + slack));
            CHECK(own >= (has_one ? Duration{} : one_way * 2));
            const Duration theirs = e.time_of_read(at_follower, read);
            CHECK(read == "1");
            CHECK(theirs <= one_way * (has_one ? 2 : 4) + slack);
            CHECK(theirs >= one_way * (has_one ? 2 : 4));
            e.sim.run_for(milliseconds(13));
        }
        const coord::LeaderCounters& counters = e.sim.replica(leader).leader_counters();
        CHECK(counters.syncs_by_lease == (has_one ? 100 : 0));
        CHECK(counters.syncs_by_round == (has_one ? 0 : 100));
    }
}

TEST_CASE("Z24 an ensemble of one, and a sync: answered at once") {
    Ensemble e(with_lease(length, 1));
    const PeerId leader = e.settle();
    Session session = e.session(leader);
    e.write(session, "1");
    bool done = false;
    session.sync([&](Result<void> result) { done = bool(result); });
    REQUIRE(e.sim.run_until([&] { return done; }, milliseconds(1)));
    CHECK(e.sim.replica(leader).leader_counters().syncs_by_lease >= 1);
}

// P6. The leader is cut off from the others, who hear so at once. Its clients read on while the
// lease lasts, and what they read is the newest there is; for this once somebody may write, it
// has ended. The clocks differ by as much as was said, in either direction.
TEST_CASE("Z24 F9 a leader that is cut off answers until its lease ends, and nobody leads before") {
    struct Rates {
        std::uint32_t leader, others, bound;
    };
    for (const Rates rates : {Rates{1000, 1000, 50}, Rates{800, 1200, 334}, Rates{1200, 800, 334},
                              Rates{950, 1050, 96}}) {
        CAPTURE(rates.leader);
        SimulationOptions options = with_lease(length);
        options.replica.clock_drift_permille = rates.bound;
        Ensemble e(options);
        const PeerId old = e.settle();
        e.sim.set_clock_rate(old, rates.leader);
        for (const PeerId id : e.others(old)) e.sim.set_clock_rate(id, rates.others);
        Session at_old = e.session(old);
        std::vector<Session> elsewhere;
        for (const PeerId id : e.others(old)) elsewhere.push_back(e.session(id));
        e.write(at_old, "1");
        e.sim.run_for(milliseconds(300));
        REQUIRE(e.lease_left(old) > Duration{});
        e.sim.isolate(old);
        e.hint(old);
        int before = 0, stale = 0;
        bool is_written = false, writes = false;
        while (!is_written) {
            const bool was_written = is_written;
            at_old.linearizable().get("/x", [&, was_written](Result<Data> data) {
                if (!data) return;
                before += !was_written && data->bytes == "1" ? 1 : 0;
                stale += is_written && data->bytes == "1" ? 1 : 0;
            });
            const PeerId leads = e.sim.leader();
            if (leads != old && leads != PeerId{} && !writes) {
                writes = true;
                elsewhere[leads == e.others(old)[0] ? 0u : 1u].create_or_set(
                    "/x", "2", [&](Result<coord::Created> made) { is_written = bool(made); });
            }
            e.sim.run_for(milliseconds(1));
            REQUIRE(e.sim.now() < Time{} + seconds(60));
        }
        CHECK(before > 50);
        CHECK(e.overlaps == 0);
        for (int i = 0; i < 200; i++) {
            at_old.linearizable().get("/x", [&](Result<Data> data) {
                if (data && data->bytes == "1") stale += 1;
            });
            e.sim.run_for(milliseconds(1));
        }
        CHECK(stale == 0);
        e.sim.heal();
        coord::Bytes read;
        e.settle();
        (void)e.time_of_read(at_old, read);
        CHECK(read == "2");
    }
}

TEST_CASE("Z24 a leader that was paused looks at the time of the poll in which it answers") {
    Ensemble e(with_lease(length));
    const PeerId old = e.settle();
    Session at_old = e.session(old), at_other = e.session(e.others(old)[0]);
    e.write(at_old, "1");
    e.sim.run_for(milliseconds(200));
    REQUIRE(e.lease_left(old) > milliseconds(150));
    e.sim.pause(old);
    REQUIRE(e.sim.run_until(
        [&] { return e.sim.leader() != old && e.sim.leader() != PeerId{}; }, seconds(10)));
    e.write(at_other, "2");
    int stale = 0, answered = 0;
    at_old.linearizable().get("/x", [&](Result<Data> data) {
        answered += 1;
        if (!data || data->bytes != "2") stale += 1;
    });
    e.sim.isolate(old);
    e.sim.resume(old);
    e.sim.run_for(milliseconds(400));
    CHECK(answered == 0);
    e.sim.heal();
    REQUIRE(e.sim.run_until([&] { return answered > 0; }, seconds(20)));
    CHECK(stale == 0);
    CHECK(e.overlaps == 0);
}

TEST_CASE("L7 F9 voters that come back keep a lease of which they know nothing but its length") {
    for (const bool has_one : {false, true}) {
        CAPTURE(has_one);
        Ensemble e(with_lease(has_one ? length : Duration{}));
        const PeerId old = e.settle();
        Session at_old = e.session(old);
        e.write(at_old, "1");
        e.sim.run_for(milliseconds(200));
        e.established = 0;
        e.sim.isolate(old);
        for (const PeerId id : e.others(old)) e.sim.crash(id), e.sim.restart(id);
        const Time begin = e.sim.now();
        REQUIRE(e.sim.run_until([&] { return e.established > 0; }, seconds(10)));
        const Duration took = e.sim.now() - begin;
        CHECK(e.overlaps == 0);
        CHECK((took >= length) == has_one);
        CHECK(took < length + milliseconds(200));
    }
}

TEST_CASE("Z24 an election that nobody has hinted at takes no longer with a lease") {
    Duration took[2];
    for (const bool has_one : {false, true}) {
        Ensemble e(with_lease(has_one ? silence : Duration{}));
        const PeerId old = e.settle();
        e.established = 0;
        e.sim.crash(old);
        const Time begin = e.sim.now();
        REQUIRE(e.sim.run_until([&] { return e.established > 0; }, seconds(10)));
        took[has_one ? 1 : 0] = e.sim.now() - begin;
    }
    CHECK(took[1] <= took[0] + milliseconds(5));
}

TEST_CASE("Z24 R16 a leader that hands over is followed at once: its lease is given up before") {
    for (const std::uint32_t voters : {2u, 3u, 5u}) {
        CAPTURE(voters);
        Ensemble e(with_lease(length, voters));
        const PeerId old = e.settle();
        Session at_old = e.session(old);
        e.write(at_old, "1");
        e.sim.run_for(milliseconds(200));
        REQUIRE(e.lease_left(old) > milliseconds(150));
        const PeerId next = e.others(old)[0];
        e.established = 0;
        REQUIRE(e.sim.replica(old).hand_over(next) == Errc::ok);
        const Time begin = e.sim.now();
        REQUIRE(e.sim.run_until([&] { return e.established > 0; }, seconds(10)));
        CHECK(e.sim.now() - begin < milliseconds(30));
        CHECK(e.sim.leader() == next);
        CHECK(e.overlaps == 0);
        coord::Bytes read;
        e.settle();
        (void)e.time_of_read(at_old, read);
        CHECK(read == "1");
        CHECK(e.lease_left(next) > Duration{});
    }
}

// Its word and its end come in one turn of a loop: the end is heard of first.
TEST_CASE("Z24 R16 a leader that hands over and ends at once is followed as quickly") {
    Ensemble e(with_lease(length));
    const PeerId old = e.settle();
    const PeerId next = e.others(old)[0], third = e.others(old)[1];
    e.established = 0;
    REQUIRE(e.sim.replica(old).hand_over(next) == Errc::ok);
    const Time begin = e.sim.now();
    REQUIRE(e.sim.run_until(
        [&] { return e.sim.replica(old).status().role != coord::Role::leading; }, seconds(1)));
    e.sim.pause(third);
    e.sim.run_for(microseconds(1100));  // its word has come there
    e.sim.crash(old);
    e.sim.forget(third, old), e.sim.forget(next, old);
    e.sim.resume(third);
    REQUIRE(e.sim.run_until([&] { return e.established > 0; }, seconds(10)));
    CHECK(e.sim.now() - begin < milliseconds(30));
    CHECK(e.sim.leader() == next);
    CHECK(e.overlaps == 0);
}

// Who follows it hears that it has handed over late, or never: then the lease is sat out.
TEST_CASE("Z24 what is lost of a hand-over costs the length of the lease and nothing else") {
    Ensemble e(with_lease(length));
    const PeerId old = e.settle();
    e.sim.run_for(milliseconds(150));
    const std::vector<PeerId> others = e.others(old);
    e.sim.cut(old, others[1]);
    e.established = 0;
    REQUIRE(e.sim.replica(old).hand_over(others[0]) == Errc::ok);
    e.sim.run_for(milliseconds(1));
    e.sim.cut(others[0], old);  // nor does the leader hear that it stands
    REQUIRE(e.sim.run_until([&] { return e.established > 0; }, seconds(10)));
    CHECK(e.overlaps == 0);
}

TEST_CASE("while a lease has run out syncs wait for a round, and it comes again") {
    Ensemble e(with_lease(length));
    const PeerId leader = e.settle();
    Session session = e.session(leader);
    e.write(session, "1");
    for (const PeerId id : e.others(leader)) e.sim.pause(id);
    e.sim.run_for(milliseconds(350));
    CHECK(e.lease_left(leader) == Duration{});
    const std::uint64_t before = e.sim.replica(leader).leader_counters().syncs_by_round;
    bool done = false;
    session.sync([&](Result<void> result) { done = bool(result); });
    e.sim.run_for(milliseconds(50));
    CHECK_FALSE(done);
    for (const PeerId id : e.others(leader)) e.sim.resume(id);
    REQUIRE(e.sim.run_until([&] { return done; }, milliseconds(100)));
    CHECK(e.sim.leader() == leader);
    CHECK(e.sim.replica(leader).leader_counters().syncs_by_round == before + 1);
    e.sim.run_for(milliseconds(200));
    CHECK(e.lease_left(leader) > Duration{});
}

// Each epoch has its leader's length, whatever the others' options are, or were.
TEST_CASE("F9 L7 replicas with other options: what the leader's say holds, also when they change") {
    paper::WorldOptions options;
    Duration leases[4] = {Duration{}, Duration{}, milliseconds(200), milliseconds(400)};
    options.tune = [&leases](coord::ReplicaOptions& each) {
        each.leader_lease = leases[each.id.value];
    };
    paper::World w(options);
    w.start_all();
    REQUIRE(w.run_until([&] { return w.are_equal(w.ids()); }));
    REQUIRE(w.leader() == PeerId{3});
    w.run(milliseconds(200));
    CHECK(w[PeerId{3}].status().lease_left > milliseconds(200));
    for (const PeerId id : {PeerId{1}, PeerId{2}}) {
        CHECK(w[id].log().epochs().lease == milliseconds(400));
        CHECK(w[id].status().lease_kept > milliseconds(250));
    }
    leases[1] = leases[2] = leases[3] = Duration{};  // and nobody has one any more
    for (const PeerId id : {PeerId{1}, PeerId{2}}) w.crash(id), w.start(id);
    w.run(milliseconds(1));
    for (const PeerId id : {PeerId{1}, PeerId{2}}) {
        CHECK(w[id].status().lease_kept > milliseconds(390));
    }
    w.crash(PeerId{3});
    const Time begin = w.now();
    REQUIRE(w.run_until([&] { return w.leader() != PeerId{}; }));
    CHECK(w.now() >= begin + milliseconds(390));
    w.run(milliseconds(300));
    for (const PeerId id : {PeerId{1}, PeerId{2}}) {
        CHECK(w[id].log().epochs().lease == Duration{});
        CHECK(w[id].status().lease_kept == Duration{});
        CHECK(w[id].status().lease_left == Duration{});
    }
    CHECK(w.verify() == "");
}

TEST_CASE("what there is to see of a lease: at who has it, and at who keeps it") {
    Ensemble e(with_lease(length));
    const PeerId leader = e.settle();
    e.sim.run_for(milliseconds(110));
    for (std::uint32_t id = 1; id <= 3; id++) {
        const coord::Replica& replica = e.sim.replica(id);
        const coord::ReplicaStatus status = replica.status();
        const bool leads = PeerId{id} == leader;
        CHECK((status.lease_left > Duration{}) == leads);
        CHECK((status.lease_kept > Duration{}) == !leads);
        CHECK(status.lease_left <= milliseconds(285));
        CHECK(status.lease_kept <= length);
        const std::string text = replica.describe();
        CHECK((text.find("; lease for 0.") != std::string::npos) == leads);
        CHECK((text.find("keeps a leader's for 0.") != std::string::npos) == !leads);
        std::uint64_t left = 0, kept = 0;
        replica.visit_metrics([&](const coord::Metric& metric) {
            if (std::string(metric.name) == "coord_lease_left_ms") left = metric.value;
            if (std::string(metric.name) == "coord_lease_kept_ms") kept = metric.value;
        });
        CHECK((left > 0) == leads);
        CHECK((kept > 0) == !leads);
    }
}

TEST_CASE("lengths that make no sense are refused by name") {
    coord::MemoryStorage disk;
    const auto flaw = [&](const coord::ReplicaOptions& options) {
        const coord::Replica replica(options, disk);
        return std::string(replica.status().reason);
    };
    coord::ReplicaOptions options;
    const std::string range = "options: leader_lease is below two heartbeats, or above silence";
    for (const Duration bad : {milliseconds(199), milliseconds(501), milliseconds(-300),
                               Duration{1}, Duration{INT64_MAX}, Duration{INT64_MIN}}) {
        options.leader_lease = bad;
        CHECK(flaw(options) == range);
    }
    for (const Duration good : {milliseconds(200), milliseconds(500), length, Duration{}}) {
        options.leader_lease = good;
        CHECK(flaw(options) == "");
    }
    const std::string unit = "options: leader_lease is not in microseconds, or above an hour";
    options.leader_lease = length + coord::nanoseconds(1);
    CHECK(flaw(options) == unit);
    options.timing.silence = seconds(10000), options.leader_lease = seconds(4295);
    CHECK(flaw(options) == unit);
    options.leader_lease = seconds(4294);
    CHECK(flaw(options) == "");
    options.clock_drift_permille = 500;
    CHECK(flaw(options) == "options: clock drift of 50 percent or more");
}

}  // TEST_SUITE
