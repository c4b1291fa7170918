// Chapters 12 to 14: writes that ZooKeeper has not, as a session asks for them. What each does to
// the tree is in 04_parts.cpp; here are the calls, their answers, handles that are guarded, and
// whole ensembles.

#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "session_rig.hpp"
#include "support.hpp"

namespace {

using coord::Bytes;
using coord::CreateMode;
using coord::Errc;
using coord::Multi;
using coord::Op;
using coord::Session;
using coord::SessionId;
using coord::Zxid;
using session_rig::Alone;
using session_rig::BytesView;
using session_rig::Ensemble;
using session_rig::milliseconds;
using session_rig::seconds;
using session_rig::Sync;
using Lines = std::vector<std::string>;

constexpr CreateMode ephemeral = CreateMode::ephemeral;

std::vector<Errc> errors(const Multi& multi) {
    std::vector<Errc> result;
    for (const coord::Part& part : multi.parts) result.push_back(part.error);
    return result;
}

Bytes bytes_at(const Sync& zk, BytesView path) {
    const auto data = zk.get(path);
    return data ? data->bytes : Bytes(coord::name(data.error()));
}

Zxid czxid_of(const Sync& zk, BytesView path) {
    const auto stat = zk.exists(path);
    return stat ? stat->czxid : Zxid{};
}

}  // namespace

TEST_SUITE("13 writes") {

TEST_CASE("conditions in a multi: it is done where all hold, and else says which did not") {
    Alone alone;
    const Sync zk = alone.open();
    const Zxid a = zk.create("/a", "1")->stat.czxid;
    REQUIRE(zk.create("/e", "", ephemeral));
    const Multi done = zk.multi({Op::exists("/a"), Op::absent("/b"), Op::has_czxid("/a", a),
                                 Op::has_owner("/e", zk.session().id()), Op::has_data("/a", "1"),
                                 Op::has_children("/a", 0), Op::create("/b", "")});
    CHECK(done);
    CHECK(done.parts[4].stat.czxid == a);
    CHECK(done.parts[6].path == "/b");
    const Multi not_done =
        zk.multi({Op::set("/a", "2"), Op::has_data("/a", "1"), Op::remove("/b")});
    CHECK(not_done.error == Errc::condition_failed);
    CHECK(errors(not_done) == std::vector<Errc>{Errc::ok, Errc::condition_failed,
                                                Errc::runtime_inconsistency});
    CHECK(bytes_at(zk, "/a") == "1");
    CHECK(zk.multi({Op::absent("/a")}).error == Errc::node_exists);
    CHECK(zk.multi({Op::exists("/none")}).error == Errc::no_node);
    CHECK(zk.multi({Op::has_data("/a/", "")}).error == Errc::bad_arguments);
    CHECK(zk.multi({Op::has_data("/a", coord::null_data)}).error == Errc::condition_failed);
    REQUIRE(zk.set("/a", coord::null_data));
    CHECK(zk.multi({Op::has_data("/a", coord::null_data)}));
    CHECK(zk.multi({Op::has_data("/a", Bytes(2 * 1024 * 1024, 'x'))}).error == Errc::too_large);
}

TEST_CASE("create_or_set says which it did") {
    Alone alone;
    const Sync zk = alone.open();
    const auto made = zk.create_or_set("/a", "1");
    REQUIRE(made);
    CHECK(made->is_new);
    CHECK(made->path == "/a");
    CHECK(made->stat.version == 0);
    const auto set = zk.create_or_set("/a", "22", ephemeral);
    REQUIRE(set);
    CHECK_FALSE(set->is_new);
    CHECK(set->path == "/a");
    CHECK(set->stat.version == 1);
    CHECK(set->stat.data_length == 2);
    CHECK(set->stat.czxid == made->stat.czxid);
    CHECK(set->stat.ephemeral_owner == SessionId{});
    CHECK(zk.create_or_set("/e", "", ephemeral)->stat.ephemeral_owner == zk.session().id());
    CHECK(zk.create_or_set("/none/x", "").error() == Errc::no_node);
    CHECK(zk.create_or_set("/n-", "", CreateMode::persistent_sequential).error() ==
          Errc::bad_arguments);
    CHECK(zk.create("/c", "")->is_new);
    const Multi multi = zk.multi({Op::create_or_set("/t", "", CreateMode::persistent_with_ttl,
                                                    seconds(7))});
    CHECK(multi);
    CHECK(alone.replica.tree().life("/t")->ttl_ms == 7000);
}

TEST_CASE("create_with_parents and remove_all, and what watchers hear of the latter") {
    Alone alone;
    const Sync zk = alone.open();
    const auto made = zk.create_with_parents("/a/b/c", "deep", CreateMode::ephemeral_sequential,
                                             CreateMode::container);
    REQUIRE(made);
    CHECK(made->path == "/a/b/c0000000000");
    CHECK(made->is_new);
    CHECK(alone.replica.tree().life("/a")->kind == coord::NodeKind::container);
    CHECK(zk.create_with_parents("/a/b/", "", CreateMode::persistent_sequential)->path ==
          "/a/b/0000000001");
    CHECK(zk.create_with_parents("/x/y", ""));
    CHECK(alone.replica.tree().life("/x")->kind == coord::NodeKind::persistent);
    CHECK(zk.create_with_parents("/x/y", "").error() == Errc::node_exists);
    CHECK(zk.create_with_parents("/a/b/c0000000000/x", "").error() ==
          Errc::no_children_for_ephemerals);
    Lines heard;
    REQUIRE(zk.add_watch("/a", coord::AddWatchMode::persistent_recursive,
                         [&](const coord::WatchEvent& event) { heard.push_back(event.path); }));
    CHECK(zk.remove_all("/a"));
    CHECK(heard == Lines{"/a/b/c0000000000", "/a/b/0000000001", "/a/b", "/a"});
    CHECK(zk.remove_all("/a").error() == Errc::no_node);
    CHECK(zk.remove_all("/").error() == Errc::bad_arguments);
    CHECK(zk.exists("/x"));
}

TEST_CASE("remove_all: its bound is an error, and nothing is removed then") {
    coord::ReplicaOptions options;
    options.limits.removals_max = 3;
    Alone alone(options);
    const Sync zk = alone.open();
    for (const char* const path : {"/a/1", "/a/2", "/a/3"}) {
        REQUIRE(zk.create_with_parents(path, ""));
    }
    CHECK(zk.remove_all("/a").error() == Errc::too_large);
    CHECK(zk.children("/a")->names.size() == 3);
    REQUIRE(zk.remove("/a/3"));
    CHECK(zk.remove_all("/a"));
}

TEST_CASE("removals, guarded or of all below, find room where other writes are refused") {
    coord::ReplicaOptions options;
    options.limits.requests_per_session_max = 4;
    Alone alone(options);
    const Sync zk = alone.open();
    REQUIRE(zk.create("/lock", ""));
    const Session guarded = zk.session().guarded_by("/lock", czxid_of(zk, "/lock"));
    std::vector<Errc> answers;
    const coord::OnDone done = [&](coord::Result<void> r) { answers.push_back(r.error()); };
    const Session plain = zk.session();
    for (int i = 0; i < 4; i++) plain.create("/" + std::to_string(i), "", coord::OnCreated());
    guarded.create("/late", "", coord::OnCreated());
    guarded.remove("/0", done);
    plain.remove_all("/1", done);
    guarded.remove_all("/2", done);
    alone.polls();
    CHECK(answers == std::vector<Errc>(3, Errc::ok));
    CHECK_FALSE(zk.exists("/late"));
}

TEST_CASE("take_over: a program that starts again has its node at once, with another token") {
    Ensemble all;
    const Sync old = all.open(1, seconds(60));
    const SessionId id = old.session().id();
    const coord::SessionPassword password = old.session().password();
    const auto before = old.create("/leader", "old", ephemeral);
    REQUIRE(before);
    const Sync watching = all.open(2);
    Lines heard;
    REQUIRE(watching.sync());
    REQUIRE(watching.exists("/leader", [&](const coord::WatchEvent& event) {
        heard.push_back(event.path + " " + std::to_string(static_cast<int>(event.type)));
    }));
    const Sync young = all.open(3);
    CHECK(young.take_over("/leader", "", id, {1, 2}).error() == Errc::auth_failed);
    CHECK(watching.take_over("/leader", "", young.session().id(), password).error() ==
          Errc::node_exists);
    const auto after = young.take_over("/leader", "new", id, password);
    REQUIRE(after);
    CHECK(after->is_new);
    CHECK(before->stat.czxid < after->stat.czxid);
    CHECK(after->stat.ephemeral_owner == young.session().id());
    all.sim.run_for(seconds(1));
    CHECK(heard == Lines{"/leader 2"});  // deleted
    // The old one has not noticed; its token is worth nothing, and its end changes nothing.
    CHECK(old.guarded_by("/leader", before->stat.czxid).create("/a", "").error() ==
          Errc::guard_lost);
    CHECK(old.close());
    CHECK(bytes_at(young, "/leader") == "new");
    // And where it has ended before.
    const Sync third = all.open(1);
    CHECK(third.take_over("/other", "", id, password)->is_new);
}

TEST_CASE("guarded_by: every kind of write, while the node is there, and none after") {
    Alone alone;
    const Sync zk = alone.open();
    const Zxid lock = zk.create("/lock", "", ephemeral)->stat.czxid;
    const Sync guarded = zk.guarded_by("/lock", lock);
    const auto made = guarded.create("/a", "1");
    REQUIRE(made);
    CHECK(made->path == "/a");
    CHECK(made->stat.czxid == czxid_of(zk, "/a"));
    CHECK(guarded.create("/n-", "", CreateMode::persistent_sequential)->path == "/n-0000000002");
    CHECK(guarded.create("/a", "").error() == Errc::node_exists);
    const auto set = guarded.set("/a", "22", 0);
    REQUIRE(set);
    CHECK(set->version == 1);
    CHECK(guarded.set("/a", "", 7).error() == Errc::bad_version);
    CHECK(guarded.remove("/none").error() == Errc::no_node);
    CHECK(guarded.remove("/n-0000000002"));
    CHECK_FALSE(guarded.create_or_set("/a", "3")->is_new);
    CHECK(guarded.create_with_parents("/p/q", ""));
    CHECK(guarded.remove_all("/p"));
    const Multi multi = guarded.multi({Op::set("/a", "4"), Op::create("/b", "")});
    CHECK(multi);
    REQUIRE(multi.parts.size() == 2);
    CHECK(multi.parts[0].stat.version == 3);
    CHECK(multi.parts[1].path == "/b");
    CHECK(guarded.multi({}).parts.empty());
    CHECK(errors(guarded.multi({Op::set("/a", ""), Op::check("/none")})) ==
          std::vector<Errc>{Errc::ok, Errc::no_node});
    CHECK(bytes_at(guarded, "/a") == "4");
    // It goes, and comes back under its name.
    REQUIRE(zk.remove("/lock"));
    for (const bool is_back : {false, true}) {
        CAPTURE(is_back);
        if (is_back) REQUIRE(zk.create("/lock", "", ephemeral));
        CHECK(guarded.create("/c", "").error() == Errc::guard_lost);
        CHECK(guarded.set("/a", "5").error() == Errc::guard_lost);
        CHECK(guarded.remove("/a").error() == Errc::guard_lost);
        CHECK(guarded.create_or_set("/a", "5").error() == Errc::guard_lost);
        CHECK(guarded.remove_all("/a").error() == Errc::guard_lost);
        const Multi lost = guarded.multi({Op::set("/a", "5"), Op::create("/c", "")});
        CHECK(lost.error == Errc::guard_lost);
        CHECK(errors(lost) == std::vector<Errc>(2, Errc::runtime_inconsistency));
        CHECK(bytes_at(guarded, "/a") == "4");  // reads are not guarded
        CHECK_FALSE(zk.exists("/c"));
        CHECK(guarded.sync());
    }
    CHECK(guarded.close());  // neither is this
}

TEST_CASE("guarded_by: below a path, twice, and by what is no path") {
    Alone alone;
    const Sync zk = alone.open();
    REQUIRE(zk.create_with_parents("/app/lock", ""));
    REQUIRE(zk.create("/outside", ""));
    const Zxid lock = czxid_of(zk, "/app/lock"), outside = czxid_of(zk, "/outside");
    const Sync app = zk.below("/app");
    const Sync guarded = app.guarded_by("/lock", lock);
    CHECK(guarded.create("/a", "")->path == "/a");
    CHECK(guarded.create("/n-", "", CreateMode::ephemeral_sequential)->path == "/n-0000000002");
    CHECK(guarded.multi({Op::create("/b", "")}).parts.at(0).path == "/b");
    CHECK(guarded.create_with_parents("/x/n-", "", CreateMode::persistent_sequential)->path ==
          "/x/n-0000000000");
    CHECK(guarded.create_with_parents("/x/", "", CreateMode::persistent_sequential)->path ==
          "/x/0000000001");
    CHECK(zk.exists("/app/x/0000000001"));
    // The guard's path is of the handle that it was asked of.
    CHECK(zk.guarded_by("/outside", outside).below("/app").create("/c", "")->path == "/c");
    const Sync twice = guarded.guarded_by("/c", czxid_of(app, "/c"));
    CHECK(twice.set("/a", "1"));
    REQUIRE(app.remove("/c"));
    CHECK(twice.set("/a", "2").error() == Errc::guard_lost);
    CHECK(guarded.set("/a", "3"));
    REQUIRE(app.remove("/lock"));
    CHECK(guarded.set("/a", "4").error() == Errc::guard_lost);
    CHECK(zk.guarded_by("/", Zxid{}).set("/outside", "root"));
    CHECK(app.guarded_by("/", czxid_of(zk, "/app")).set("/a", "5"));
    CHECK(app.guarded_by("/", Zxid{}).set("/a", "6").error() == Errc::guard_lost);
    CHECK(app.guarded_by("lock", lock).set("/a", "").error() == Errc::bad_arguments);
    CHECK(app.guarded_by("", lock).set("/a", "").error() == Errc::bad_arguments);
    CHECK(zk.guarded_by("", Zxid{}).set("/outside", "").error() == Errc::bad_arguments);
    CHECK(zk.below("no path").guarded_by("/x", lock).set("/a", "").error() == Errc::bad_arguments);
}

TEST_CASE("guards count among the parts, and are judged before anything is sent") {
    coord::ReplicaOptions options;
    options.limits.multi_parts_max = 2;
    Alone alone(options);
    const Sync zk = alone.open();
    const Sync guarded = zk.guarded_by("/", Zxid{});
    CHECK(guarded.create("/a", ""));
    CHECK(guarded.multi({Op::set("/a", "1"), Op::set("/a", "2")}).error == Errc::too_many);
    CHECK(guarded.guarded_by("/", Zxid{}).set("/a", "3").error() == Errc::too_many);
    CHECK(guarded.set("/a", Bytes(2 * 1024 * 1024, 'x')).error() == Errc::too_large);
    CHECK(guarded.create("/x/", "").error() == Errc::bad_arguments);
    CHECK(bytes_at(zk, "/a").empty());
}

TEST_CASE("a request that claims more guards than it has parts is refused") {
    Alone alone;
    const Sync zk = alone.open();
    std::vector<Errc> answers;
    for (const std::size_t guards : {0u, 1u, 2u}) {
        coord::Request request;
        request.kind = coord::Request::Kind::multi;
        request.parts = {Op::check("/")}, request.guards = guards;
        request.done = coord::OnMulti([&answers, guards](const Multi& multi) {
            answers.push_back(multi.error);
            CHECK(multi.parts.size() == (guards == 0 ? 1 : 0));
        });
        alone.replica.submit(zk.session().id(), std::move(request));
    }
    alone.polls();
    CHECK(answers == std::vector<Errc>{Errc::ok, Errc::ok, Errc::bad_arguments});
}

TEST_CASE("an empty callback is allowed, and answers come in the order of the calls") {
    Alone alone;
    const Sync zk = alone.open();
    const Session session = zk.session();
    std::vector<int> order;
    session.create_or_set("/a", "", coord::OnCreated());
    session.create_with_parents("/b/c", "", coord::OnCreated());
    session.guarded_by("/", Zxid{}).set("/a", "x", [&](auto) { order.push_back(1); });
    session.remove_all("/b", coord::OnDone());
    session.exists("/b", [&](auto r) { order.push_back(r ? 0 : 2); });
    session.take_over("/e", "", SessionId{5}, {}, [&](auto r) { order.push_back(r ? 3 : 0); });
    session.remove_all("/b", [&](auto) { order.push_back(4); });
    alone.polls();
    CHECK(order == std::vector<int>{1, 2, 3, 4});
}

TEST_CASE("a guarded write that was executed stays done, whoever leads, and is not judged again") {
    for (std::uint64_t seed = 1; seed <= 6; seed++) {
        CAPTURE(seed);
        Ensemble all(seed);
        const std::uint32_t home = all.follower();
        const Sync zk = all.open(home, seconds(60));
        const Zxid lock = zk.create("/lock", "", ephemeral)->stat.czxid;
        REQUIRE(zk.create("/count", ""));
        std::vector<Errc> answers;
        const Session guarded = zk.session().guarded_by("/lock", lock);
        const auto done = [&](coord::Result<coord::Created> r) { answers.push_back(r.error()); };
        for (int i = 0; i < 8; i++) {
            guarded.create("/count/n-", "", CreateMode::persistent_sequential, done);
            if (i == 5) zk.session().remove("/lock", coord::OnDone());
        }
        all.sim.run_for(milliseconds(static_cast<std::int64_t>(seed)));
        all.sim.crash(all.leader());  // some of it may be on its way
        REQUIRE(all.sim.run_until([&] { return answers.size() == 8; }, seconds(30)));
        for (std::size_t i = 0; i < 8; i++) {
            CHECK(answers[i] == (i <= 5 ? Errc::ok : Errc::guard_lost));
        }
        CHECK(zk.children("/count")->names.size() == 6);
    }
}

TEST_CASE("a replica that installs a snapshot has what such writes have come to") {
    coord::SimulationOptions options = Ensemble::options(3);
    options.replica.snapshot_every_entries = 20, options.replica.log_entries_kept = 2;
    Ensemble all(options);
    const std::uint32_t away = all.follower();
    const Sync zk = all.open(all.leader(), seconds(60));
    const Sync old = all.open(all.leader(), seconds(60));
    const auto before = old.create("/e", "", ephemeral);
    REQUIRE(before);
    all.sim.isolate(away);
    REQUIRE(zk.take_over("/e", "", old.session().id(), old.session().password()));
    all.sim.run_for(seconds(5));  // now nothing is kept for it
    for (int i = 0; i < 200; i++) {
        REQUIRE(zk.create_with_parents("/a/" + std::to_string(i) + "/x", ""));
        if (i % 4 == 0) REQUIRE(zk.remove_all("/a/" + std::to_string(i)));
        REQUIRE(zk.create_or_set("/set", std::to_string(i)));
    }
    all.sim.heal();
    all.sim.run_for(seconds(5));
    const coord::Replica& late = all.sim.replica(away);
    CHECK(late.counters().snapshots_installed == 1);
    CHECK(late.status().digest == all.sim.replica(all.leader()).status().digest);
    late.audit();
    CHECK(late.tree().find("/e")->stat.ephemeral_owner == zk.session().id());
    CHECK(old.guarded_by("/e", before->stat.czxid).set("/set", "").error() == Errc::guard_lost);
}

TEST_CASE("lock: a grant guards writes until its node has gone, and the next one's go on") {
    Ensemble all(5);
    const std::uint32_t cut = all.follower();
    const Session one = all.open(cut, seconds(2)).session();
    const Sync two = all.open(all.leader(), seconds(60));
    REQUIRE(two.create("/data", "nobody"));
    coord::Grant first, second;
    coord::Lock lock(one, "/locks/door"), next(two.session(), "/locks/door");
    lock.acquire([&](coord::Result<coord::Grant> grant) { first = *grant; });
    REQUIRE(all.sim.run_until([&] { return first.fencing_token != 0; }, seconds(5)));
    std::vector<Errc> answers;
    const auto done = [&](coord::Result<coord::Stat> r) { answers.push_back(r.error()); };
    const Session guarded = first.guarded(one);
    guarded.set("/data", "one", done);
    REQUIRE(all.sim.run_until([&] { return answers.size() == 1; }, seconds(5)));
    CHECK(answers[0] == Errc::ok);
    // Cut off, it goes on writing; its session ends, and another has the lock.
    next.acquire([&](coord::Result<coord::Grant> grant) { second = *grant; });
    all.sim.isolate(cut);
    guarded.set("/data", "late", done);
    REQUIRE(all.sim.run_until([&] { return second.fencing_token != 0; }, seconds(30)));
    CHECK(second.guarded(two.session()).id() == two.session().id());
    CHECK(two.guarded_by(second.node, Zxid{second.fencing_token}).set("/data", "two"));
    all.sim.heal();
    REQUIRE(all.sim.run_until([&] { return answers.size() == 2; }, seconds(30)));
    CHECK(answers[1] == Errc::session_expired);
    // A session that lives on, its lock taken from it, is told by its guard.
    REQUIRE(two.remove(second.node));
    CHECK(two.guarded_by(second.node, Zxid{second.fencing_token}).set("/data", "late").error() ==
          Errc::guard_lost);
    CHECK(bytes_at(two, "/data") == "two");
}

}  // TEST_SUITE
