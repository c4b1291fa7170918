// Chapter 14: barriers. A standalone replica in virtual time first; then three voters in a
// simulation.

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

#include "session_rig.hpp"
#include "support.hpp"

namespace {

using coord::Barrier;
using coord::Bytes;
using coord::CreateMode;
using coord::DoubleBarrier;
using coord::Errc;
using coord::milliseconds;
using coord::Result;
using coord::seconds;
using coord::Session;
using coord::Sync;
using session_rig::Alone;
using session_rig::Ensemble;

std::vector<Bytes> below(const coord::Replica& replica) {
    std::vector<Bytes> names;
    (void)replica.tree().children("/b", "", 5000, names);
    return names;
}

coord::OnDone into(std::vector<Errc>& answers) {
    return [&answers](const Result<void>& done) { answers.push_back(done.error()); };
}

using Errors = std::vector<Errc>;
const Errors fine{Errc::ok};

struct Member {
    Errors entered, left;
    std::unique_ptr<DoubleBarrier> barrier;

    Member(const Session& session, std::size_t members)
        : barrier(new DoubleBarrier(session, "/b", members)) {}
    Member& enter() { return barrier->enter(into(entered)), *this; }
    Member& leave() { return barrier->leave(into(left)), *this; }
};

using Members = std::vector<std::unique_ptr<Member>>;

void join(Members& all, const Session& session, std::size_t members) {
    all.push_back(std::make_unique<Member>(session, members));
    all.back()->enter();
}

std::size_t inside(const Members& all) {
    std::size_t count = 0;
    for (const auto& member : all) count += std::size_t{member->barrier->is_inside()};
    return count;
}

}  // namespace

TEST_SUITE("14 barriers") {

// -------------------------------------------------------------------------------------------------
// A barrier

TEST_CASE("barrier: who waits is let through when it is lowered, or where it is not there") {
    Alone alone;
    Sync zk = alone.open();
    Barrier barrier{zk.session(), "/a/b"}, other{alone.open().session(), "/a/b"};
    Errors raised, waited, lowered, again;
    barrier.wait(into(waited));
    alone.polls();
    CHECK(waited == fine);
    barrier.raise(into(raised));
    other.raise(into(raised));
    alone.polls();
    CHECK(raised == Errors(2, Errc::ok));
    CHECK(zk.exists("/a/b")->ephemeral_owner == coord::SessionId{});
    for (Barrier* each : {&barrier, &other}) each->wait(into(again));
    alone.polls();
    CHECK(again.empty());
    other.lower(into(lowered));
    barrier.lower(into(lowered));
    alone.polls();
    CHECK(lowered == Errors(2, Errc::ok));
    CHECK(again == Errors(2, Errc::ok));
}

TEST_CASE("barrier: C20, what is no removal lets nobody through; nor one after which it is back") {
    Alone alone;
    Sync zk = alone.open();
    Barrier barrier{alone.open().session(), "/b"};
    REQUIRE(zk.create("/b", ""));
    Errors waited;
    barrier.wait(into(waited));
    alone.polls();
    for (int i = 0; i < 5; i++) {
        REQUIRE(zk.set("/b", "x"));
        alone.polls(i);
        REQUIRE(zk.multi({coord::Op::remove("/b"), coord::Op::create("/b", "")}));
        alone.polls(i);
        REQUIRE(zk.create("/b/x", ""));
        REQUIRE(zk.remove("/b/x"));
        alone.polls();
        CHECK(waited.empty());
    }
    CHECK(alone.replica.status().watches == 1);
    REQUIRE(zk.remove("/b"));
    alone.polls();
    CHECK(waited == fine);
}

TEST_CASE("barrier: wait_for, cancel, a second wait, destruction; no watchers are heaped up") {
    Alone alone;
    Sync zk = alone.open();
    auto barrier = std::make_unique<Barrier>(alone.open().session(), "/b");
    REQUIRE(zk.create("/b", ""));
    for (int i = 0; i < 20; i++) {
        Errors waited;
        barrier->wait_for(milliseconds(5), into(waited));
        barrier->wait(into(waited));
        alone.polls(20);
        CHECK(waited == Errors{Errc::bad_arguments, Errc::operation_timeout});
        waited.clear();
        barrier->wait(into(waited));
        alone.polls(i % 5);
        barrier->cancel();
        CHECK(waited.empty());
        alone.polls();
        CHECK(waited == Errors{Errc::cancelled});
    }
    CHECK(alone.replica.status().watches == 1);
    barrier->cancel();
    Errors waited;
    barrier->wait(into(waited));
    alone.polls(3);
    barrier.reset();
    REQUIRE(zk.remove("/b"));
    alone.polls();
    CHECK(waited.empty());
    Barrier nowhere{zk.session(), "b"};
    nowhere.wait(into(waited)), nowhere.raise(into(waited)), nowhere.lower(into(waited));
    alone.polls();
    CHECK(waited == Errors(3, Errc::bad_arguments));
}

TEST_CASE("barrier: K6, a watcher of the wait before that is told while this one looks") {
    Alone alone;
    Sync zk = alone.open();
    Barrier barrier{alone.open().session(), "/b"};
    REQUIRE(zk.create("/b", ""));
    Errors before, waited;
    barrier.wait(into(before));
    alone.polls();
    barrier.cancel();
    zk.session().remove("/b", coord::any_version, {});
    zk.session().create("/b", "", {});
    barrier.wait(into(waited));
    alone.polls();
    CHECK(before == Errors{Errc::cancelled});
    CHECK(waited.empty());
    REQUIRE(zk.remove("/b"));
    alone.polls();
    CHECK(waited == fine);
}

TEST_CASE("barrier: the session ends, moves, or its replica fails: who waits hears it") {
    for (const Errc end : {Errc::session_expired, Errc::session_moved, Errc::replica_failed}) {
        for (int moment = 0; moment < 4; moment++) {
            INFO(coord::name(end) << " after polls: " << moment);
            Alone alone;
            Sync zk = alone.open();
            Barrier barrier{zk.session(), "/b"};
            REQUIRE(zk.create("/b", ""));
            Errors waited;
            barrier.wait(into(waited));
            alone.polls(moment);
            const Session session = zk.session();
            const coord::SessionPassword password = session.password();
            if (end == Errc::session_expired) session.close();
            if (end == Errc::session_moved) {
                REQUIRE(Sync::attach(alone.replica, session.id(), password, alone.pump()));
            }
            if (end == Errc::replica_failed) alone.disk.fail(), session.create("/x", "", {});
            alone.polls();
            CHECK(waited == Errors{end});
        }
    }
}

TEST_CASE("barrier, three voters: a replica that is behind lets nobody through") {
    Ensemble all;
    const std::uint32_t at = all.follower(0);
    Barrier barrier{all.open(at, seconds(30)).session(), "/b"};
    Sync zk = all.open(all.leader(), seconds(30));
    all.sim.isolate(at);
    REQUIRE(zk.create("/b", ""));
    Errors waited;
    barrier.wait(into(waited));
    all.sim.run_for(seconds(2));
    CHECK(waited.empty());
    all.sim.heal();
    all.sim.run_for(seconds(3));
    CHECK(waited.empty());
    REQUIRE(zk.remove("/b"));
    all.sim.run_for(seconds(3));
    CHECK(waited == fine);
}

// -------------------------------------------------------------------------------------------------
// A double barrier

TEST_CASE("double barrier: all are let in when all are there, and out when all have left") {
    for (const std::size_t count : {1u, 2u, 3u, 8u}) {
        INFO("members " << count);
        Alone alone;
        Sync zk = alone.open();
        Members all;
        for (std::size_t i = 0; i < count; i++) {
            CHECK(inside(all) == 0);
            join(all, alone.open().session(), count);
            alone.polls(20);
        }
        for (int round = 0; round < 3; round++) {
            CHECK(inside(all) == count);
            for (const auto& member : all) CHECK(member->entered == fine);
            const auto ready = zk.exists("/b/ready");
            REQUIRE(ready);
            CHECK(ready->ephemeral_owner == coord::SessionId{});
            CHECK(below(alone.replica).size() == count + 1);
            for (std::size_t i = 0; i < count; i++) {
                for (const auto& member : all) CHECK(member->left.empty());
                all[(i * 5 + static_cast<std::size_t>(round)) % count]->leave();
                alone.polls(20);
            }
            for (const auto& member : all) CHECK(member->left == fine);
            CHECK(below(alone.replica).empty());
            for (const auto& member : all) {
                member->entered.clear(), member->left.clear();
                member->enter();
            }
            alone.polls(40);
        }
    }
}

TEST_CASE("double barrier: nodes are laid out as Curator does, and its members stand beside") {
    Alone alone;
    Sync zk = alone.open();
    Members all;
    join(all, zk.session(), 2);
    alone.polls(20);
    REQUIRE(below(alone.replica).size() == 1);
    CHECK(below(alone.replica)[0].size() == 36);
    // Another client's member, which makes ready itself.
    REQUIRE(zk.create("/b/e0d3c1c2-2a5b-4d0e-9c0b-0a5d1f0e8b11", "", CreateMode::ephemeral));
    alone.polls(20);
    CHECK(inside(all) == 0);  // nothing says so yet: the one that comes last does
    REQUIRE(zk.create("/b/ready", ""));
    alone.polls(20);
    CHECK(inside(all) == 1);
    all[0]->leave();
    alone.polls(20);
    CHECK(all[0]->left.empty());
    REQUIRE(zk.remove("/b/e0d3c1c2-2a5b-4d0e-9c0b-0a5d1f0e8b11"));
    alone.polls(20);
    CHECK(all[0]->left == fine);
    CHECK(below(alone.replica).empty());
}

TEST_CASE("double barrier: C20, events of all kinds let nobody in early") {
    Alone alone;
    Sync zk = alone.open();
    Members all;
    for (int i = 0; i < 2; i++) join(all, alone.open().session(), 3);
    alone.polls(20);
    for (int i = 0; i < 4; i++) {
        const std::vector<Bytes> names = below(alone.replica);
        for (const Bytes& name : names) REQUIRE(zk.set("/b/" + name, "x"));
        REQUIRE(zk.set("/b", "x"));
        // There and gone again, and one that is older than its members.
        REQUIRE(zk.multi({coord::Op::create("/b/ready", ""), coord::Op::remove("/b/ready")}));
        REQUIRE(zk.create("/b/x", "", CreateMode::ephemeral));
        REQUIRE(zk.remove("/b/x"));
        alone.polls(20);
        CHECK(inside(all) == 0);
    }
    for (const auto& member : all) CHECK(member->entered.empty());
    join(all, alone.open().session(), 3);
    alone.polls(20);
    CHECK(inside(all) == 3);
}

TEST_CASE("double barrier: K7, who comes when a round has begun is of the next one") {
    Alone alone;
    Members all;
    for (int i = 0; i < 2; i++) join(all, alone.open().session(), 2);
    alone.polls(20);
    CHECK(inside(all) == 2);
    for (int i = 0; i < 3; i++) join(all, alone.open().session(), 2);
    alone.polls(20);
    CHECK(inside(all) == 2);
    all[0]->leave();
    alone.polls(20);
    CHECK(all[0]->left.empty());
    CHECK(inside(all) == 1);
    all[1]->leave();  // and does not wait for the three
    alone.polls(20);
    CHECK(all[0]->left == fine);
    CHECK(all[1]->left == fine);
    CHECK(inside(all) == 3);
}

TEST_CASE("double barrier: K7, ready of a round all of whose members have died lets nobody in") {
    Alone alone;
    Sync dead = alone.open();
    Members all;
    for (int i = 0; i < 2; i++) join(all, dead.session(), 2);
    alone.polls(20);
    REQUIRE(inside(all) == 2);
    SUBCASE("before the next come") {
        REQUIRE(dead.close());
        alone.polls(20);
        REQUIRE(below(alone.replica) == std::vector<Bytes>{"ready"});
        join(all, alone.open().session(), 2);
        alone.polls(20);
    }
    SUBCASE("while one of the next waits") {
        join(all, alone.open().session(), 2);
        alone.polls(20);
        REQUIRE(dead.close());
        alone.polls(20);
    }
    CHECK(inside(all) == 0);
    CHECK(all[2]->entered.empty());
    join(all, alone.open().session(), 2);
    alone.polls(20);
    CHECK(inside(all) == 2);
}

TEST_CASE("double barrier: one that gives up is counted out, or it is let in") {
    for (const bool is_cancel : {false, true}) {
        for (int moment = 0; moment < 14; moment++) {
            INFO("cancel " << is_cancel << " after polls: " << moment);
            Alone alone;
            Members all;
            join(all, alone.open().session(), 2);
            alone.polls(20);
            all.push_back(std::make_unique<Member>(alone.open().session(), 2));
            if (is_cancel) all[1]->enter();
            if (!is_cancel) {
                all[1]->barrier->enter_for(milliseconds(moment), into(all[1]->entered));
            }
            if (is_cancel) alone.polls(moment), all[1]->barrier->cancel();
            alone.polls(30);
            REQUIRE(all[1]->entered.size() == 1);
            const bool is_in = all[1]->entered == fine;
            CHECK(all[0]->barrier->is_inside() == is_in);  // all, or none
            CHECK(all[1]->barrier->is_inside() == is_in);
            if (is_in) continue;
            const Errc expected = is_cancel ? Errc::cancelled : Errc::operation_timeout;
            CHECK(all[1]->entered == Errors{expected});
            CHECK(below(alone.replica).size() == 1);
            CHECK(all[0]->entered.empty());
            all[1]->enter();
            alone.polls(30);
            CHECK(inside(all) == 2);
        }
    }
}

TEST_CASE("double barrier: K7, none is let in where a member goes after all were counted") {
    std::size_t let_in = 0, held_up = 0;
    for (int moment = 0; moment < 8; moment++) {
        Alone alone;
        Sync zk = alone.open();  // its answers come first
        Members all;
        join(all, alone.open().session(), 2);
        alone.polls(20);
        REQUIRE(below(alone.replica).size() == 1);
        const Bytes first = "/b/" + below(alone.replica)[0];
        join(all, alone.open().session(), 2);
        Session other = zk.session();
        const int polls = moment;
        coord::Zxid gone;
        const auto removed = [&](const Result<void>&) { gone = alone.replica.answer_zxid(); };
        const auto remove = [&](const Result<coord::Children>&) {
            other.remove(first, coord::any_version, removed);
        };
        alone.polls(polls);
        other.children("/b", coord::Page{}, remove);
        alone.polls(30);
        const bool is_in = all[1]->entered == fine;
        const auto ready = alone.replica.tree().find("/b/ready");
        REQUIRE(ready.has_value() == is_in);
        if (is_in) CHECK(ready->stat.czxid < gone);
        (is_in ? let_in : held_up) += 1;
    }
    CHECK(let_in > 0);
    CHECK(held_up > 0);
}

TEST_CASE("double barrier: giving up while an earlier round is inside, too") {
    Alone alone;
    Members all;
    for (int i = 0; i < 2; i++) join(all, alone.open().session(), 2);
    alone.polls(20);
    join(all, alone.open().session(), 2);
    alone.polls(20);
    all[2]->barrier->cancel();
    alone.polls(20);
    CHECK(all[2]->entered == Errors{Errc::cancelled});
    CHECK(below(alone.replica).size() == 3);
    all[0]->leave();
    alone.polls(20);
    all[0]->barrier->cancel();  // it has left, and does not wait
    alone.polls(20);
    CHECK(all[0]->left == Errors{Errc::cancelled});
    all[1]->leave();
    alone.polls(20);
    CHECK(all[1]->left == fine);
    CHECK(below(alone.replica).empty());
}

TEST_CASE("double barrier: a member that dies, or is removed, does not hold up those who leave") {
    for (const std::size_t dying : {0u, 1u, 2u}) {
        for (int moment = 0; moment < 6; moment++) {
            INFO("member " << dying << " after polls: " << moment);
            Alone alone;
            std::vector<Sync> homes;
            Members all;
            for (int i = 0; i < 3; i++) {
                homes.push_back(alone.open());
                join(all, homes.back().session(), 3);
            }
            alone.polls(30);
            REQUIRE(inside(all) == 3);
            for (std::size_t i = 0; i < 3; i++) {
                if (i != dying) all[i]->leave();
            }
            alone.polls(moment);
            homes[dying].session().close();
            alone.polls(30);
            for (std::size_t i = 0; i < 3; i++) {
                CHECK(all[i]->left == (i == dying ? Errors{} : fine));
            }
            CHECK(below(alone.replica).empty());
        }
    }
}

TEST_CASE("double barrier: somebody removes the node of one that waits, or all there is") {
    Alone alone;
    Sync zk = alone.open();
    Members all;
    join(all, alone.open().session(), 2);
    alone.polls(20);
    SUBCASE("the node") { REQUIRE(zk.remove("/b/" + below(alone.replica)[0])); }
    SUBCASE("all there is") { REQUIRE(zk.remove_all("/b")); }
    alone.polls(20);
    CHECK(all[0]->entered == Errors{Errc::lock_lost});
    for (int i = 0; i < 2; i++) join(all, alone.open().session(), 2);
    alone.polls(30);
    CHECK(inside(all) == 2);
    REQUIRE(zk.remove_all("/b"));
    all[1]->leave(), all[2]->leave();
    alone.polls(20);
    CHECK(all[1]->left == fine);
    CHECK(all[2]->left == fine);
}

TEST_CASE("double barrier: arguments, and calls at the wrong time, are bad_arguments") {
    Alone alone;
    const Session session = alone.open().session();
    Errors answers;
    for (const std::size_t count : {std::size_t{0}, DoubleBarrier::members_max + 1, SIZE_MAX}) {
        DoubleBarrier barrier{session, "/b", count};
        barrier.enter(into(answers)), barrier.leave(into(answers)), barrier.cancel();
        alone.polls();
    }
    DoubleBarrier nowhere{session, "/b/", 1};
    nowhere.enter(into(answers));
    Member member{session, 2};
    member.enter().enter().leave();
    alone.polls();
    CHECK(answers == Errors(7, Errc::bad_arguments));
    CHECK(member.entered == Errors{Errc::bad_arguments});
    CHECK(member.left == Errors{Errc::bad_arguments});
    CHECK(below(alone.replica).size() == 1);
}

TEST_CASE("double barrier: a list that is no more one answer is too_large, and leaves no node") {
    coord::ReplicaOptions options;
    options.limits.list_max = 2;
    Alone alone{options};
    Members all;
    for (int i = 0; i < 3; i++) join(all, alone.open().session(), 3), alone.polls(20);
    CHECK(all[2]->entered == Errors{Errc::too_large});
    CHECK(below(alone.replica).size() == 2);
}

TEST_CASE("double barrier: destroyed at whatever moment, it calls nobody and leaves no node") {
    for (int moment = 0; moment < 16; moment++) {
        INFO("after polls: " << moment);
        Alone alone;
        Members all;
        join(all, alone.open().session(), 2);
        alone.polls(20);
        join(all, alone.open().session(), 2);
        alone.polls(moment);
        if (moment % 3 == 1) all[1]->barrier->cancel();
        if (all[1]->barrier->is_inside() && moment % 2 == 0) all[1]->leave();
        const Errors entered = all[1]->entered;
        all[1]->barrier.reset();
        alone.polls(20);
        CHECK(all[1]->entered == entered);
        CHECK(all[1]->left.empty());
        if (all[0]->barrier->is_inside()) all[0]->leave();
        alone.polls(20);
        if (!all[0]->left.empty()) CHECK(below(alone.replica).empty());
        if (all[0]->left.empty()) CHECK(below(alone.replica).size() == 1);
        all[0]->barrier.reset();
        alone.polls(20);
        CHECK(below(alone.replica).empty());
    }
}

TEST_CASE("double barrier: destroyed by its own answers") {
    Alone alone;
    auto barrier = std::make_unique<DoubleBarrier>(alone.open().session(), "/b", 1);
    int calls = 0;
    const auto end = [&](const Result<void>&) { calls += 1, barrier.reset(); };
    SUBCASE("of enter") { barrier->enter(end); }
    SUBCASE("of leave") {
        barrier->enter([&](const Result<void>&) { barrier->leave(end); });
    }
    SUBCASE("of one that is cancelled") {
        barrier->enter(end);
        barrier->cancel();
    }
    alone.polls(30);
    CHECK(calls == 1);
    std::vector<Bytes> members = below(alone.replica);
    if (!members.empty()) CHECK(members == std::vector<Bytes>{"ready"});  // it was destroyed inside
}

TEST_CASE("double barrier: the session ends, moves, or its replica fails, at whatever moment") {
    for (const Errc end : {Errc::session_expired, Errc::session_moved, Errc::replica_failed}) {
        for (int moment = 0; moment < 12; moment++) {
            INFO(coord::name(end) << " after polls: " << moment);
            Alone alone;
            Sync zk = alone.open();
            Member member{zk.session(), 2};
            member.enter();
            alone.polls(moment);
            const Session session = zk.session();
            const coord::SessionPassword password = session.password();
            if (end == Errc::session_expired) session.close();
            if (end == Errc::session_moved) {
                REQUIRE(Sync::attach(alone.replica, session.id(), password, alone.pump()));
            }
            if (end == Errc::replica_failed) alone.disk.fail(), session.create("/x", "", {});
            alone.polls(20);
            CHECK(member.entered == Errors{end});
        }
    }
}

// -------------------------------------------------------------------------------------------------
// Three voters

TEST_CASE("double barrier, three voters: the leader dies as the last one comes, or as they leave") {
    for (std::uint64_t seed = 1; seed <= 10; seed++) {
        INFO("seed " << seed);
        Ensemble ensemble{seed};
        Members all;
        const auto home = [&](std::uint32_t i) {
            return ensemble.open(ensemble.follower(i % 2), seconds(20)).session();
        };
        for (std::uint32_t i = 0; i < 3; i++) join(all, home(i), 4);
        ensemble.sim.run_for(seconds(1));
        const Session last = home(3);
        const std::uint32_t leader = ensemble.leader();
        if (seed % 2 == 0) ensemble.sim.crash_at_send(leader, static_cast<std::uint32_t>(seed));
        join(all, last, 4);
        REQUIRE(ensemble.sim.run_until([&] { return inside(all) == 4; }, seconds(20)));
        if (seed % 2 != 0) ensemble.sim.crash_at_send(leader, static_cast<std::uint32_t>(seed));
        for (const auto& member : all) member->leave();
        const auto all_left = [&] {
            for (const auto& member : all) {
                if (member->left.empty()) return false;
            }
            return true;
        };
        REQUIRE(ensemble.sim.run_until(all_left, seconds(20)));
        for (const auto& member : all) CHECK(member->entered == fine);
        for (const auto& member : all) CHECK(member->left == fine);
        ensemble.sim.run_for(seconds(3));
        CHECK(below(ensemble.sim.replica(ensemble.follower(0))).empty());
    }
}

TEST_CASE("double barrier, three voters: one that is cut off is let in when it is back") {
    Ensemble ensemble;
    const std::uint32_t at = ensemble.follower(0), elsewhere = ensemble.follower(1);
    Members all;
    join(all, ensemble.open(at, seconds(20)).session(), 3);
    join(all, ensemble.open(elsewhere, seconds(20)).session(), 3);
    ensemble.sim.run_for(seconds(1));
    const Session late = ensemble.open(elsewhere, seconds(20)).session();
    ensemble.sim.isolate(at);
    all[0]->barrier->cancel();  // too late to be heard
    ensemble.sim.run_for(milliseconds(500));
    join(all, late, 3);
    ensemble.sim.run_for(seconds(5));
    CHECK(inside(all) == 2);
    CHECK(all[0]->entered.empty());
    ensemble.sim.heal();
    ensemble.sim.run_for(seconds(5));
    CHECK(all[0]->entered == fine);  // the others are in, so it is
    CHECK(inside(all) == 3);
}

TEST_CASE("double barrier, three voters: one whose session expires is not counted") {
    Ensemble ensemble;
    const std::uint32_t at = ensemble.follower(0), elsewhere = ensemble.follower(1);
    Members all;
    join(all, ensemble.open(at, seconds(2)).session(), 2);
    ensemble.sim.run_for(seconds(1));
    ensemble.sim.isolate(at);
    ensemble.sim.run_for(seconds(8));
    join(all, ensemble.open(elsewhere, seconds(20)).session(), 2);
    ensemble.sim.run_for(seconds(2));
    ensemble.sim.heal();
    ensemble.sim.run_for(seconds(5));
    CHECK(all[0]->entered == Errors{Errc::session_expired});
    CHECK(all[1]->entered.empty());
}

}  // TEST_SUITE
