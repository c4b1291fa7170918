// Chapters 4 and 8 to 13: the members of an ensemble change while it serves. Replicas 1 to n are
// those that found it, in a simulation; those after them observe until they vote.

#include <doctest/doctest.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "coord.hpp"
#include "support.hpp"

namespace {

using coord::Bytes;
using coord::BytesView;
using coord::Data;
using coord::Errc;
using coord::Member;
using coord::milliseconds;
using coord::PeerId;
using coord::Reconfig;
using coord::Result;
using coord::Role;
using coord::seconds;
using coord::Simulation;
using coord::SimulationOptions;
using coord::Sync;
using coord::Zxid;
using Ids = std::vector<std::uint32_t>;

SimulationOptions of(std::uint32_t voters, std::uint32_t observers) {
    SimulationOptions options;
    options.voters = voters, options.observers = observers;
    options.seed = support::seed_or(11);
    options.replica.ensemble = 99;
    options.replica.super_digest = coord::digest_id("super:secret");
    return options;
}

Member voter(std::uint32_t id, std::uint32_t weight = 1, std::uint32_t group = 0) {
    Member member;
    member.id = PeerId{id}, member.weight = weight, member.group = group;
    return member;
}

Member observer(std::uint32_t id) {
    Member member = voter(id);
    member.votes = false;
    return member;
}

Reconfig change(const Ids& joining, const Ids& leaving = {}) {
    Reconfig all;
    for (const std::uint32_t id : joining) all.joining.push_back(voter(id));
    for (const std::uint32_t id : leaving) all.leaving.emplace_back(id);
    return all;
}

Reconfig whole(const Ids& voters) {
    Reconfig all;
    for (const std::uint32_t id : voters) all.members.push_back(voter(id));
    return all;
}

Bytes config_of(const Ids& voters, Zxid version) {
    Bytes text;
    for (const std::uint32_t id : voters) {
        text += "server." + std::to_string(id) + "=participant\n";
    }
    char digits[32];
    std::snprintf(digits, sizeof digits, "version=%llx",
                  static_cast<unsigned long long>(version.value));
    return text + digits;
}

struct World {
    SimulationOptions options;
    Simulation sim;

    World(std::uint32_t voters, std::uint32_t observers) : World(of(voters, observers)) {}
    explicit World(const SimulationOptions& all) : options(all), sim(all) {
        REQUIRE(comes_true([&] { return all_serve(); }));
        REQUIRE(comes_true([&] { return !table(leader()).is_founding() || all.voters <= 2; }));
        sim.run_for(seconds(2));  // nobody has just been met
    }
    template <class Condition>
    bool comes_true(Condition&& condition, coord::Duration limit = seconds(30)) {
        return sim.run_until([&] { return condition(); }, limit);
    }
    bool serves(std::uint32_t id) {
        return sim.is_running(id) && sim.replica(id).status().serving;
    }
    bool all_serve() {
        for (std::uint32_t id = 1; id <= sim.size(); id++) {
            if (sim.is_running(id) && !serves(id)) return false;
        }
        return true;
    }
    const coord::VoterTable& table(std::uint32_t id) { return sim.replica(id).machine().voters(); }
    Role role(std::uint32_t id) { return sim.replica(id).status().role; }
    std::uint32_t leader() { return sim.leader().value; }
    bool has_leader() { return sim.leader() != PeerId{}; }
    Sync open(std::uint32_t at, bool is_super = true) {
        auto opened = Sync::open(sim.replica(at), {seconds(30)}, sim.pump());
        REQUIRE(opened);
        Sync zk(*opened, sim.pump());
        if (is_super) REQUIRE(zk.add_auth("digest", "super:secret"));
        return zk;
    }
    Ids voters(std::uint32_t id) {
        Ids ids;
        for (const Member& member : table(id).members()) {
            if (member.votes) ids.push_back(member.id.value);
        }
        return ids;
    }
    // The change has gone through: everybody knows, and is what it says.
    void are(const Ids& ids) {
        REQUIRE(comes_true([&] {
            for (std::uint32_t id = 1; id <= sim.size(); id++) {
                if (!sim.is_running(id)) continue;
                if (!serves(id) || voters(id) != ids || table(id).is_joint()) return false;
            }
            return true;
        }));
        REQUIRE(comes_true([&] { return all_say(ids); }));
        for (std::uint32_t id = 1; id <= sim.size(); id++) {
            if (sim.is_running(id)) sim.replica(id).audit();
            if (sim.is_running(id)) counts_right(sim.replica(id), ids.size());
        }
    }
    // A replica that leads goes by those who vote now, in what it says of itself, too.
    static void counts_right(const coord::Replica& replica, std::size_t voters) {
        const bool leads = replica.status().role == Role::leading;
        std::int64_t followers = -1;
        replica.visit_metrics([&](const coord::Metric& metric) {
            const bool is_it = BytesView(metric.name) == "zk_synced_followers";
            if (is_it) followers = static_cast<std::int64_t>(metric.value);
        });
        if (leads) CHECK(followers < static_cast<std::int64_t>(voters));
        const std::string of = " of " + std::to_string(voters) + " in step";
        if (leads) CHECK(replica.describe().find(of) != Bytes::npos);
    }
    bool all_say(const Ids& ids) {
        bool are_right = true;
        for (std::uint32_t id = 1; id <= sim.size(); id++) {
            if (!sim.is_running(id)) continue;
            const bool votes = std::find(ids.begin(), ids.end(), id) != ids.end();
            are_right = are_right && (role(id) != Role::observing) == votes;
        }
        return are_right;
    }
    void change_to(const Sync& zk, const Reconfig& what, const Ids& ids) {
        const Result<Data> done = zk.reconfig(what);
        REQUIRE(done);
        CHECK(done->bytes == config_of(ids, done->zxid));
        CHECK(done->stat.mzxid == done->zxid);
        are(ids);
    }
    // A majority of these alone decides, and no fewer.
    void counts(const Ids& ids) {
        const std::size_t spare = (ids.size() - 1) / 2;
        for (std::size_t i = 0; i < spare; i++) sim.crash(ids[i]);
        REQUIRE(comes_true([&] { return has_leader(); }));
        Sync zk = open(leader(), false);
        REQUIRE(zk.create("/counts-", "", coord::CreateMode::persistent_sequential));
        sim.crash(ids[spare]);
        sim.run_for(seconds(3));
        CHECK_FALSE(has_leader());
        for (std::size_t i = 0; i <= spare; i++) sim.restart(ids[i]);
        REQUIRE(comes_true([&] { return all_serve(); }));
        sim.run_for(seconds(2));
    }
};

}  // namespace

TEST_SUITE("13 reconfig") {

TEST_CASE("M12 growth from one to two and three, and back, while a session goes on") {
    World w(1, 2);
    Sync zk = w.open(1);
    Sync far = w.open(3, false);
    w.change_to(zk, change({2}), {1, 2});
    REQUIRE(far.create("/a", "x"));
    w.change_to(zk, change({3}), {1, 2, 3});
    w.counts({1, 2, 3});
    zk = w.open(2);
    w.change_to(zk, change({}, {3}), {1, 2});
    w.change_to(zk, change({}, {1}), {2});
    CHECK(w.role(2) == Role::leading);
    REQUIRE(zk.create("/b", "x"));
    REQUIRE(w.comes_true([&] { return w.sim.replica(3).tree().contains("/b"); }));
}

TEST_CASE("M1 a voter that is dead is replaced by one that has been observing") {
    World w(3, 1);
    const std::uint32_t dead = w.leader() % 3 + 1;
    w.sim.crash(dead);
    Sync zk = w.open(w.leader());
    Ids ids;
    for (std::uint32_t id = 1; id <= 4; id++) {
        if (id != dead) ids.push_back(id);
    }
    w.change_to(zk, change({4}, {dead}), ids);
    w.counts(ids);
    w.sim.restart(dead);
    w.are(ids);
    CHECK(w.role(dead) == Role::observing);
}

TEST_CASE("any set to any other, in one step") {
    World w(3, 3);
    Sync zk = w.open(w.leader());
    Sync far = w.open(5, false);
    w.change_to(zk, whole({4, 5, 6}), {4, 5, 6});
    REQUIRE(far.create("/a", "x"));
    w.counts({4, 5, 6});
    Sync next = w.open(w.leader());
    w.change_to(next, whole({1, 2, 3, 4, 5}), {1, 2, 3, 4, 5});
    w.counts({1, 2, 3, 4, 5});
}

TEST_CASE("M2 Z19 a leader that leaves leads until that is so, answers, and observes") {
    World w(3, 0);
    const std::uint32_t leader = w.leader();
    Sync zk = w.open(leader);
    Ids ids;
    for (std::uint32_t id = 1; id <= 3; id++) {
        if (id != leader) ids.push_back(id);
    }
    w.change_to(zk, change({}, {leader}), ids);
    CHECK(w.role(leader) == Role::observing);
    REQUIRE(zk.create("/after", "x"));  // the session has noticed nothing
}

TEST_CASE("M10 a voter becomes an observer, and a voter again") {
    World w(3, 0);
    Sync zk = w.open(w.leader());
    const std::uint32_t other = w.leader() % 3 + 1;
    Reconfig demotion;
    demotion.joining.push_back(observer(other));
    const Result<Data> done = zk.reconfig(demotion);
    REQUIRE(done);
    CHECK(done->bytes.find("server." + std::to_string(other) + "=observer\n") != Bytes::npos);
    REQUIRE(w.comes_true([&] { return w.role(other) == Role::observing; }));
    w.sim.run_for(seconds(1));
    CHECK(w.serves(other));
    w.change_to(zk, change({other}), {1, 2, 3});
}

// The leader goes in the midst of it, after so many messages, and stays away for a while.
void crash_in_between(const Reconfig& what, const Ids& next, std::uint32_t sends,
                      bool comes_back) {
    CAPTURE(sends);
    World w(3, 2);
    const std::uint32_t leader = w.leader();
    Sync zk = w.open(leader % 3 + 1);
    std::optional<Errc> told;
    w.sim.crash_at_send(leader, sends);
    zk.session().reconfig(what, [&](Result<Data> r) { told = r.error(); });
    (void)w.comes_true([&] { return !w.sim.is_running(leader) || told.has_value(); }, seconds(3));
    if (!comes_back && w.sim.is_running(leader)) return;  // it has ended before
    if (comes_back) {
        w.sim.run_for(milliseconds(200));
        if (!w.sim.is_running(leader)) w.sim.restart(leader);
    }
    if (w.sim.is_running(leader)) w.sim.crash_at_send(leader, UINT32_MAX - 1);  // no more
    // Who has asked is told, whoever leads now; and a change that has begun ends.
    REQUIRE(w.comes_true([&] { return told.has_value() && w.has_leader(); }));
    CHECK(*told == Errc::ok);
    w.are(next);
    Sync other = w.open(w.leader(), false);
    REQUIRE(other.create("/after", "x"));
}

TEST_CASE("E6 M2 the leader crashes anywhere in a change: the next one ends it, and it is told") {
    for (std::uint32_t sends = 1; sends <= 30; sends++) {
        crash_in_between(change({4, 5}), {1, 2, 3, 4, 5}, sends, false);
        crash_in_between(whole({3, 4, 5}), {3, 4, 5}, sends, true);
    }
}

// A replica goes after so many messages of a change, and is back a little later.
void go_from_one_to_three_and_back(std::uint32_t who, std::uint32_t sends, std::uint64_t seed) {
    CAPTURE(who);
    CAPTURE(sends);
    SimulationOptions options = of(1, 2);
    options.seed = seed;
    World w(options);
    const Ids sets[] = {{1, 2}, {1, 2, 3}, {3}, {2, 3}, {1}};
    Ids written;
    for (const Ids& ids : sets) {
        CAPTURE(ids.size());
        Sync zk = w.open(who % 3 + 1);
        std::optional<Errc> told;
        zk.session().reconfig(whole(ids), [&](Result<Data> r) { told = r.error(); });
        w.sim.crash_at_send(who, sends);
        (void)w.comes_true([&] { return !w.sim.is_running(who) || told; }, seconds(2));
        w.sim.run_for(milliseconds(300));
        if (w.sim.is_running(who)) w.sim.crash(who);
        w.sim.restart(who);
        REQUIRE(w.comes_true([&] { return told.has_value(); }));
        if (*told != Errc::ok) {  // it went before anything had begun
            CHECK(*told == Errc::new_config_no_quorum);
            REQUIRE(w.comes_true([&] { return w.all_serve(); }));
            w.sim.run_for(seconds(2));
            CHECK(zk.reconfig(whole(ids)).error() == Errc::ok);
        }
        w.are(ids);
        Sync other = w.open(w.leader(), false);
        written.push_back(static_cast<std::uint32_t>(written.size()));
        REQUIRE(other.create("/" + std::to_string(written.back()), "x"));
        w.sim.run_for(seconds(2));
    }
    for (std::uint32_t id = 1; id <= 3; id++) w.sim.crash(id);
    w.sim.restart(1);  // alone, as its log says
    REQUIRE(w.comes_true([&] { return w.leader() == 1; }));
    for (const std::uint32_t name : written) {
        CHECK(w.sim.replica(1).tree().contains("/" + std::to_string(name)));
    }
    w.sim.restart(2), w.sim.restart(3);
    w.are({1});
}

TEST_CASE("M12 E4 E6 growth and back; one of them crashes, and comes back with its log alone") {
    for (std::uint32_t who = 1; who <= 3; who++) {
        for (std::uint32_t sends = 0; sends <= 16; sends++) {
            go_from_one_to_three_and_back(who, sends, support::seed_or(11));
        }
    }
}

TEST_CASE("E5 a leader that loses the quorum of the next voters leads no more") {
    World w(3, 2);
    const std::uint32_t leader = w.leader();
    Sync zk = w.open(leader);
    std::optional<Errc> told;
    zk.session().reconfig(whole({leader, 4, 5}), [&](Result<Data> r) { told = r.error(); });
    const auto is_joint = [&](std::uint32_t id) {
        coord::Replica& replica = w.sim.replica(id);
        return replica.log().voters_at_end(replica.machine()).is_joint();
    };
    REQUIRE(w.comes_true([&] { return is_joint(leader); }));
    w.sim.crash(4), w.sim.crash(5);  // before they have it
    w.sim.run_for(seconds(3));
    CHECK_FALSE(w.has_leader());
    CHECK_FALSE(told.has_value());
    w.sim.restart(4);
    REQUIRE(w.comes_true([&] { return told.has_value(); }));
    CHECK(*told == Errc::ok);
}

TEST_CASE("Z21 while the members change nothing is handed over; then to one who has joined") {
    World w(3, 2);
    Sync zk = w.open(w.leader());
    const std::uint32_t leader = w.leader();
    CHECK(w.sim.replica(leader).hand_over(PeerId{4}) == Errc::bad_arguments);  // it observes
    std::optional<Errc> told;
    zk.session().reconfig(whole({leader, 4, 5}), [&](auto r) { told = r.error(); });
    REQUIRE(w.comes_true([&] {
        coord::Replica& replica = w.sim.replica(leader);
        return replica.log().voters_at_end(replica.machine()).is_joint();
    }));
    w.sim.crash(4), w.sim.crash(5);  // before they have it
    w.sim.run_for(milliseconds(100));
    REQUIRE(w.leader() == leader);
    CHECK(w.sim.replica(leader).hand_over() == Errc::reconfig_in_progress);
    CHECK(w.sim.replica(leader).hand_over(PeerId{4}) == Errc::reconfig_in_progress);
    w.sim.restart(4), w.sim.restart(5);
    REQUIRE(w.comes_true([&] { return told.has_value(); }));
    CHECK(*told == Errc::ok);
    Ids ids{leader, 4, 5};
    w.are(ids);
    w.sim.run_for(seconds(2));
    const std::uint32_t to = w.leader() == 4 ? 5 : 4;
    CHECK(w.sim.replica(w.leader()).hand_over(PeerId{to}) == Errc::ok);
    CHECK(w.comes_true([&] { return w.leader() == to; }, milliseconds(500)));
    const std::uint32_t gone = leader == 1 ? 2 : 1;  // observes now
    CHECK(w.sim.replica(to).hand_over(PeerId{gone}) == Errc::bad_arguments);
    w.are(ids);
}

TEST_CASE("M9 M10 one that lags far behind is made a voter, and learns all by a snapshot") {
    SimulationOptions options = of(3, 2);
    options.replica.snapshot_every_entries = 20;
    options.replica.log_entries_kept = 0;
    World w(options);
    Sync zk = w.open(w.leader());
    w.sim.crash(5);
    for (int i = 0; i < 200; i++) REQUIRE(zk.set("/", "x"));
    w.change_to(zk, change({4, 5}), {1, 2, 3, 4, 5});  // four of five are there
    for (int i = 0; i < 200; i++) REQUIRE(zk.set("/", "x"));
    w.sim.restart(5);
    w.are({1, 2, 3, 4, 5});
    REQUIRE(w.comes_true([&] { return w.sim.replica(5).status().admitted; }));
    w.counts({1, 2, 3, 4, 5});
}

TEST_CASE("M11 addresses change, all at once, and nobody has to begin anew") {
    World w(3, 0);
    Sync zk = w.open(w.leader());
    const std::uint64_t elections = w.sim.replica(w.leader()).counters().elections;
    Reconfig moved = whole({1, 2, 3});
    for (Member& member : moved.members) {
        member.address = "new" + std::to_string(member.id.value) + ":1:2";
    }
    REQUIRE(zk.reconfig(moved));
    for (std::uint32_t id = 1; id <= 3; id++) {
        REQUIRE(w.comes_true([&] {
            const std::vector<Member> all = w.sim.replica(id).members();
            return all.size() == 3 && all[2].address == "new3:1:2";
        }));
    }
    CHECK(w.sim.replica(w.leader()).counters().elections == elections);
}

TEST_CASE("what is refused, and why") {
    World w(3, 2);
    Sync zk = w.open(w.leader());
    Sync other = w.open(w.leader(), false);
    const auto error = [&](const Reconfig& what) { return zk.reconfig(what).error(); };
    CHECK(other.reconfig(change({4})).error() == Errc::no_auth);
    CHECK(error({}) == Errc::bad_arguments);
    Reconfig both = whole({1, 2});
    both.leaving.emplace_back(1u);
    CHECK(error(both) == Errc::bad_arguments);
    CHECK(error(change({}, {1, 2, 3})) == Errc::bad_arguments);
    CHECK(error(change({0})) == Errc::bad_arguments);
    Reconfig light;
    for (std::uint32_t id = 1; id <= 3; id++) light.members.push_back(voter(id, 0));
    CHECK(error(light) == Errc::bad_arguments);
    Reconfig twice = whole({1, 2, 2});
    CHECK(error(twice) == Errc::bad_arguments);
    Reconfig named = change({4});
    named.joining[0].address = "a\nserver.9=participant";
    CHECK(error(named) == Errc::bad_arguments);
    named.joining[0].address = Bytes(257, 'a');
    CHECK(error(named) == Errc::bad_arguments);
    Ids many;
    for (std::uint32_t id = 1; id <= 64; id++) many.push_back(id);
    CHECK(error(whole(many)) == Errc::bad_arguments);
    for (std::uint32_t id = 65; id <= 513; id++) many.push_back(id);
    CHECK(error(whole(many)) == Errc::bad_arguments);
    Reconfig versioned = change({4});
    versioned.version = Zxid{1};
    CHECK(error(versioned) == Errc::bad_version);
    CHECK(error(whole({1, 7, 8})) == Errc::new_config_no_quorum);  // nobody has heard of these
    w.sim.crash(4), w.sim.crash(5);
    w.sim.run_for(seconds(2));
    CHECK(error(whole({1, 4, 5})) == Errc::new_config_no_quorum);
    CHECK(w.table(w.leader()).changed() == w.table(w.leader()).version());
    w.sim.restart(4);
    REQUIRE(w.comes_true([&] { return w.serves(4); }));
    w.sim.run_for(seconds(2));
    versioned.version = w.table(w.leader()).version();
    REQUIRE(zk.reconfig(versioned));
    w.are({1, 2, 3, 4});
}

TEST_CASE("M3 of two at once the second one is told that the first one is under way") {
    World w(3, 2);
    const std::uint32_t leader = w.leader();
    Sync a = w.open(leader);
    Sync b = w.open(leader % 3 + 1);
    std::optional<Errc> first, second;
    a.session().reconfig(change({4}), [&](Result<Data> r) { first = r.error(); });
    REQUIRE(w.comes_true([&] {
        return w.sim.replica(leader).log().voters_at_end(
            w.sim.replica(leader).machine()).is_joint();
    }));
    w.sim.isolate(leader);  // so that the first step cannot be committed for a while
    b.session().reconfig(change({5}), [&](Result<Data> r) { second = r.error(); });
    w.sim.run_for(milliseconds(50));
    w.sim.heal();
    REQUIRE(w.comes_true([&] { return first && second; }));
    CHECK(*first == Errc::ok);
    CHECK((*second == Errc::ok || *second == Errc::reconfig_in_progress));
    w.are(*second == Errc::ok ? Ids{1, 2, 3, 4, 5} : Ids{1, 2, 3, 4});
}

TEST_CASE("M4 who was removed, and comes back with what it knew, neither wins nor disturbs") {
    World w(3, 1);
    const std::uint32_t gone = w.leader() % 3 + 1;
    Sync zk = w.open(w.leader());
    w.sim.crash(gone);
    Ids ids;
    for (std::uint32_t id = 1; id <= 4; id++) {
        if (id != gone) ids.push_back(id);
    }
    w.change_to(zk, change({4}, {gone}), ids);
    const std::uint32_t epoch = w.sim.replica(w.leader()).status().epoch;
    const std::uint64_t elections = w.sim.replica(w.leader()).counters().elections;
    w.sim.restart(gone);
    w.sim.run_for(seconds(10));
    w.are(ids);
    CHECK(w.sim.replica(w.leader()).status().epoch == epoch);
    CHECK(w.sim.replica(w.leader()).counters().elections == elections);
}

// What it has promised is of a leader that never was, and nobody else knows of it.
TEST_CASE("M4 F7 who was removed, and has promised a later epoch, observes all the same") {
    World w(3, 1);
    const std::uint32_t gone = w.leader() % 3 + 1;
    Sync zk = w.open(w.leader());
    w.sim.crash(gone);
    {
        coord::Log log(w.sim.storage(gone));
        REQUIRE(log.open() == Errc::ok);
        REQUIRE(log.accept_epoch(9, PeerId{gone}) == Errc::ok);
        REQUIRE(log.flush() == Errc::ok);
    }
    Ids ids;
    for (std::uint32_t id = 1; id <= 4; id++) {
        if (id != gone) ids.push_back(id);
    }
    w.change_to(zk, change({4}, {gone}), ids);
    const std::uint32_t epoch = w.sim.replica(w.leader()).status().epoch;
    w.sim.restart(gone);
    w.are(ids);
    CHECK(w.sim.replica(w.leader()).status().epoch == epoch);
    CHECK(w.sim.replica(gone).counters().elections < 9);
}

TEST_CASE("E1 E2 what the log says counts, whatever the options say") {
    World w(1, 2);
    Sync zk = w.open(1);
    w.change_to(zk, whole({2, 3}), {2, 3});  // nobody whom the options name
    for (std::uint32_t id = 1; id <= 3; id++) w.sim.crash(id);
    w.sim.restart(1);
    w.sim.run_for(seconds(3));
    CHECK_FALSE(w.has_leader());
    CHECK(w.role(1) == Role::looking);
    w.sim.restart(2), w.sim.restart(3);
    w.are({2, 3});
}

TEST_CASE("members have addresses, groups and weights, in the config and for transports") {
    World w(3, 0);
    Sync zk = w.open(w.leader());
    Reconfig all;
    for (std::uint32_t id = 1; id <= 3; id++) {
        Member member = voter(id, id, id == 3 ? 1 : 0);
        member.address = "h" + std::to_string(id) + ":2888:3888";
        if (id == 2) member.address += ";2181";
        all.members.push_back(member);
    }
    const Result<Data> done = zk.reconfig(all);
    REQUIRE(done);
    const Bytes text = "server.1=h1:2888:3888:participant\n"
                       "server.2=h2:2888:3888:participant;2181\n"
                       "server.3=h3:2888:3888:participant\n"
                       "group.0=1:2\ngroup.1=3\nweight.2=2\nweight.3=3\nversion=";
    CHECK(done->bytes.substr(0, text.size()) == text);
    REQUIRE(w.sim.replica(w.leader()).members().size() == 3);
    CHECK(w.sim.replica(w.leader()).members()[1].address == "h2:2888:3888;2181");
    CHECK(w.sim.replica(w.leader()).members_version() == done->zxid);
    // Two groups: a majority of them is both.
    w.sim.crash(3);
    w.sim.run_for(seconds(3));
    CHECK_FALSE(w.has_leader());
    w.sim.restart(3);
    REQUIRE(w.comes_true([&] { return w.all_serve() && w.has_leader(); }));
    w.sim.crash(1);
    w.sim.run_for(seconds(3));
    CHECK(w.has_leader());  // 2 has more than half of the weight of its group
}

TEST_CASE("of two that found it, one that has most of the weight decides alone") {
    SimulationOptions options = of(2, 0);
    options.replica.members = {voter(1, 2), voter(2, 1)};
    World w(options);
    w.sim.crash(2);
    REQUIRE(w.comes_true([&] { return w.leader() == 1; }));
    w.sim.run_for(seconds(3));
    REQUIRE(w.leader() == 1);
    Sync zk = w.open(1, false);
    REQUIRE(zk.create("/a", "x"));
}

TEST_CASE("three sites survive the loss of one") {
    SimulationOptions options = of(9, 0);
    for (std::uint32_t id = 1; id <= 9; id++) {
        options.replica.members.push_back(voter(id, 1, (id - 1) / 3));
    }
    World w(options);
    for (std::uint32_t id = 1; id <= 3; id++) w.sim.crash(id);
    w.sim.crash(4), w.sim.crash(7);  // and one in each of the others
    REQUIRE(w.comes_true([&] { return w.has_leader(); }));
    Sync zk = w.open(w.leader(), false);
    REQUIRE(zk.create("/a", "x"));
    w.sim.crash(5);
    w.sim.run_for(seconds(3));
    CHECK_FALSE(w.has_leader());
}

}  // TEST_SUITE
