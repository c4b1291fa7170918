// Chapter 4: transactions applied to the state. Each test drives a Machine directly, with
// transactions as a log would hold them.

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "coord.hpp"
#include "machine_rig.hpp"
#include "support.hpp"

namespace {

using namespace machine;

}  // namespace

TEST_SUITE("04 machine") {

TEST_CASE("a fresh machine has ZooKeeper's four nodes, no session and zxid 0") {
    Rig rig;
    CHECK(rig.machine.applied() == Zxid{});
    CHECK(rig.machine.sessions().empty());
    CHECK(rig.machine.tree().size() == 4);
    CHECK(rig.machine.find_session(SessionId{1}) == nullptr);
    CHECK(rig.machine.find_nonce(0) == nullptr);
}

TEST_CASE("open: the session's id is the zxid that opened it") {
    Rig rig;
    const SessionId id = rig.open(77, 1234);
    CHECK(id.value == Zxid(1, 1).value);
    const coord::SessionRecord* const record = rig.machine.find_session(id);
    REQUIRE(record != nullptr);
    CHECK(record->id == id);
    CHECK(record->nonce == 77);
    CHECK(record->timeout_ms == 1234);
    CHECK(record->cxid == 0);
    CHECK(record->confirmed == 0);
    CHECK(record->outcomes.empty());
    CHECK(rig.machine.find_nonce(77) == record);
    CHECK(rig.heard.lines.empty());
}

TEST_CASE("M1 open twice with one nonce is one session, and another nonce another") {
    Rig rig;
    const SessionId first = rig.open(7, 1000);
    const std::uint64_t digest = rig.machine.digest();
    const SessionId again = rig.open(7, 9999);
    CHECK(again == first);
    CHECK(rig.machine.sessions().size() == 1);
    CHECK(rig.machine.find_session(first)->timeout_ms == 1000);
    CHECK(rig.machine.digest() == digest);
    const SessionId other = rig.open(8, 1000);
    CHECK(other != first);
    CHECK(rig.machine.sessions().size() == 2);
}

TEST_CASE("a nonce is free again when its session is closed") {
    Rig rig;
    const SessionId first = rig.open(7);
    rig.next(first, OpCode::close_session, BytesView("\0", 1));
    CHECK(rig.machine.find_nonce(7) == nullptr);
    CHECK(rig.open(7) != first);
}

TEST_CASE("open: a body of the wrong size is a marshalling error and opens nothing") {
    Rig rig;
    const Bytes good = open_body(1, 2);
    for (const Bytes& body : {Bytes{}, good.substr(0, 11), good + "x"}) {
        const Outcome* const outcome = rig.apply(SessionId{}, 0, OpCode::open_session, body);
        REQUIRE(outcome != nullptr);
        CHECK(outcome->error == Errc::marshalling_error);
        CHECK(outcome->session == SessionId{});
    }
    CHECK(rig.machine.sessions().empty());
}

TEST_CASE("open: sessions_max is the bound, a repeated open is not counted") {
    Limits limits;
    limits.sessions_max = 2;
    Rig rig(limits);
    const SessionId first = rig.open(1);
    rig.open(2);
    const Outcome* outcome = rig.apply(SessionId{}, 0, OpCode::open_session, open_body(3, 9));
    CHECK(outcome->error == Errc::too_many);
    CHECK(outcome->session == SessionId{});
    CHECK(rig.open(1) == first);
    rig.next(first, OpCode::close_session, BytesView("\0", 1));
    rig.open(3);
    CHECK(rig.machine.sessions().size() == 2);
}

TEST_CASE("create: path, stat and events") {
    Rig rig;
    const SessionId id = rig.open(1);
    const Outcome made = rig.create(id, "/a", "hello");
    CHECK(made.error == Errc::ok);
    CHECK(made.path == "/a");
    CHECK(made.stat.czxid == Zxid{1, 2});
    CHECK(made.stat.mzxid == Zxid{1, 2});
    CHECK(made.stat.pzxid == Zxid{1, 2});
    CHECK(made.stat.ctime_ms == 1002);
    CHECK(made.stat.mtime_ms == 1002);
    CHECK(made.stat.version == 0);
    CHECK(made.stat.cversion == 0);
    CHECK(made.stat.ephemeral_owner == SessionId{});
    CHECK(made.stat.data_length == 5);
    CHECK(made.stat.num_children == 0);
    CHECK(rig.machine.tree().find("/a")->data == "hello");
    CHECK(rig.heard.lines == Lines{"created /a 2", "children / 2"});
    CHECK(rig.create(id, "/a/b").error == Errc::ok);
    CHECK(rig.machine.tree().find("/a")->stat.pzxid == Zxid{1, 3});
    CHECK(rig.machine.tree().find("/a")->stat.cversion == 1);
    CHECK(rig.machine.tree().find("/a")->stat.num_children == 1);
    CHECK(rig.heard.lines == Lines{"created /a 2", "children / 2", "created /a/b 3",
                                   "children /a 3"});
}

TEST_CASE("create: every error, and none changes the tree or tells anybody") {
    Rig rig;
    const SessionId id = rig.open(1);
    rig.create(id, "/a");
    rig.create(id, "/e", "", CreateMode::ephemeral);
    rig.heard.lines.clear();
    const std::uint64_t digest = rig.machine.tree().digest();
    CHECK(rig.create(id, "/a").error == Errc::node_exists);
    CHECK(rig.create(id, "/").error == Errc::node_exists);
    CHECK(rig.create(id, "/zookeeper").error == Errc::node_exists);
    CHECK(rig.create(id, "/no/b").error == Errc::no_node);
    CHECK(rig.create(id, "/e/b").error == Errc::no_children_for_ephemerals);
    CHECK(rig.create(id, "").error == Errc::bad_arguments);
    CHECK(rig.create(id, "a").error == Errc::bad_arguments);
    CHECK(rig.create(id, "/a/").error == Errc::bad_arguments);
    CHECK(rig.create(id, "//x").error == Errc::bad_arguments);
    CHECK(rig.create(id, "/a/..").error == Errc::bad_arguments);
    CHECK(rig.create(id, "/a/.").error == Errc::bad_arguments);
    CHECK(rig.create(id, BytesView("/a\0b", 4)).error == Errc::bad_arguments);
    CHECK(rig.create(id, "/\x01").error == Errc::bad_arguments);
    CHECK(rig.create(id, "/b", "", static_cast<CreateMode>(7)).error == Errc::bad_arguments);
    CHECK(rig.create(id, "/b", "", static_cast<CreateMode>(-1)).error == Errc::bad_arguments);
    CHECK(rig.next(id, OpCode::create, "junk").error == Errc::marshalling_error);
    CHECK(rig.next(id, OpCode::create, create_body("/b", "", {}) + "x").error ==
          Errc::marshalling_error);
    CHECK(rig.machine.tree().digest() == digest);
    CHECK(rig.heard.lines.empty());
}

TEST_CASE("create: a failed outcome has neither path nor stat") {
    Rig rig;
    const SessionId id = rig.open(1);
    rig.create(id, "/a");
    const Outcome failed = rig.create(id, "/a");
    CHECK(failed.path.empty());
    CHECK(failed.stat.czxid == Zxid{});
}

TEST_CASE("create: sequence numbers count the parent's creations, whoever deletes what") {
    Rig rig;
    const SessionId id = rig.open(1);
    rig.create(id, "/q");
    const CreateMode sequential = CreateMode::persistent_sequential;
    CHECK(rig.create(id, "/q/n-", "", sequential).path == "/q/n-0000000000");
    CHECK(rig.create(id, "/q/n-", "", sequential).path == "/q/n-0000000001");
    rig.remove(id, "/q/n-0000000001");
    CHECK(rig.create(id, "/q/plain").path == "/q/plain");
    CHECK(rig.create(id, "/q/", "", sequential).path == "/q/0000000003");
    const Outcome both = rig.create(id, "/q/e", "", CreateMode::ephemeral_sequential);
    CHECK(both.path == "/q/e0000000004");
    CHECK(both.stat.ephemeral_owner == id);
    CHECK(rig.heard.lines.back() == "children /q 8");
}

TEST_CASE("create: nodes_max is the bound; a delete makes room") {
    Limits limits;
    limits.nodes_max = 6;
    Rig rig(limits);
    const SessionId id = rig.open(1);
    CHECK(rig.create(id, "/a").error == Errc::ok);
    CHECK(rig.create(id, "/b").error == Errc::ok);
    CHECK(rig.create(id, "/c").error == Errc::too_many);
    CHECK(rig.create(id, "/a").error == Errc::node_exists);
    CHECK(rig.remove(id, "/a").error == Errc::ok);
    CHECK(rig.create(id, "/c").error == Errc::ok);
}

TEST_CASE("create: ephemerals_per_session_max is one session's; persistent nodes are free") {
    Limits limits;
    limits.ephemerals_per_session_max = 2;
    Rig rig(limits);
    const SessionId one = rig.open(1), two = rig.open(2);
    CHECK(rig.create(one, "/a", "", CreateMode::ephemeral).error == Errc::ok);
    CHECK(rig.create(one, "/b", "", CreateMode::ephemeral_sequential).error == Errc::ok);
    CHECK(rig.create(one, "/c", "", CreateMode::ephemeral).error == Errc::too_many);
    CHECK(rig.create(one, "/c").error == Errc::ok);
    CHECK(rig.create(two, "/d", "", CreateMode::ephemeral).error == Errc::ok);
    CHECK(rig.remove(two, "/a").error == Errc::ok);
    CHECK(rig.create(one, "/e", "", CreateMode::ephemeral).error == Errc::ok);
}

TEST_CASE("remove: every error, and its events") {
    Rig rig;
    const SessionId id = rig.open(1);
    rig.create(id, "/a");
    rig.create(id, "/a/b");
    rig.set(id, "/a/b", "x");
    rig.heard.lines.clear();
    CHECK(rig.remove(id, "/a").error == Errc::not_empty);
    CHECK(rig.remove(id, "/x").error == Errc::no_node);
    CHECK(rig.remove(id, "/a/b/c").error == Errc::no_node);
    CHECK(rig.remove(id, "/a/b", 0).error == Errc::bad_version);
    CHECK(rig.remove(id, "/a/b", 2).error == Errc::bad_version);
    CHECK(rig.remove(id, "/").error == Errc::bad_arguments);
    CHECK(rig.remove(id, "/zookeeper").error == Errc::bad_arguments);
    CHECK(rig.remove(id, "/zookeeper/quota").error == Errc::bad_arguments);
    CHECK(rig.remove(id, "").error == Errc::bad_arguments);
    CHECK(rig.next(id, OpCode::remove, "x").error == Errc::marshalling_error);
    CHECK(rig.heard.lines.empty());
    const Outcome removed = rig.remove(id, "/a/b", 1);
    CHECK(removed.error == Errc::ok);
    CHECK(removed.path.empty());
    CHECK(rig.heard.lines == Lines{"deleted /a/b 15", "children /a 15"});
    CHECK_FALSE(rig.machine.tree().contains("/a/b"));
    CHECK(rig.machine.tree().find("/a")->stat.cversion == 2);
}

TEST_CASE("set: every error, its stat and its event") {
    Rig rig;
    const SessionId id = rig.open(1);
    rig.create(id, "/a", "one");
    rig.heard.lines.clear();
    CHECK(rig.set(id, "/b", "x").error == Errc::no_node);
    CHECK(rig.set(id, "/a", "x", 1).error == Errc::bad_version);
    CHECK(rig.set(id, "b", "x").error == Errc::bad_arguments);
    CHECK(rig.next(id, OpCode::set, set_body("/a", "x", 0) + "y").error ==
          Errc::marshalling_error);
    CHECK(rig.heard.lines.empty());
    const Outcome done = rig.set(id, "/a", "three", 0);
    CHECK(done.error == Errc::ok);
    CHECK(done.stat.version == 1);
    CHECK(done.stat.czxid == Zxid{1, 2});
    CHECK(done.stat.mzxid == Zxid{1, 7});
    CHECK(done.stat.pzxid == Zxid{1, 2});
    CHECK(done.stat.ctime_ms == 1002);
    CHECK(done.stat.mtime_ms == 1007);
    CHECK(done.stat.data_length == 5);
    CHECK(rig.set(id, "/a", "three").stat.version == 2);  // the same value is a change too
    CHECK(rig.heard.lines == Lines{"data /a 7", "data /a 8"});
}

TEST_CASE("M7 a container goes by a reap when its last child has gone, and its watchers hear it") {
    Rig rig;
    const SessionId id = rig.open(1);
    const Zxid czxid = rig.create(id, "/c", "", CreateMode::container).zxid;
    CHECK(rig.reap("/c", czxid) == Errc::bad_version);  // it has had no child
    rig.create(id, "/c/x", "", CreateMode::ephemeral);
    CHECK(rig.reap("/c", czxid) == Errc::not_empty);
    rig.apply(id, 0, OpCode::close_session, BytesView("\1", 1));
    rig.heard.lines.clear();
    const std::uint64_t zxid = rig.counter + 1;
    CHECK(rig.reap("/c", czxid) == Errc::ok);
    CHECK(rig.heard.lines == Lines{"deleted /c " + std::to_string(zxid),
                                   "children / " + std::to_string(zxid)});
    CHECK_FALSE(rig.machine.tree().contains("/c"));
    CHECK(rig.machine.tree().find("/")->stat.pzxid == Zxid{1, zxid});
    CHECK(rig.machine.applied() == Zxid{1, zxid});
    CHECK(rig.reap("/c", czxid) == Errc::no_node);
    CHECK(rig.heard.lines.size() == 2);
}

TEST_CASE("M7 a ttl counts from the last set, on the time that transactions carry") {
    Rig rig;
    const SessionId id = rig.open(1);
    const auto mode = CreateMode::persistent_with_ttl;
    const Outcome made = rig.create(id, "/t", "", mode, 3);
    CHECK(made.error == Errc::ok);
    CHECK(made.stat.ephemeral_owner == SessionId{});
    CHECK(rig.reap("/t", made.zxid) == Errc::bad_version);  // 1 ms later
    rig.create(id, "/t/x");
    rig.remove(id, "/t/x");
    CHECK(rig.set(id, "/t", "new").stat.mtime_ms == made.stat.mtime_ms + 4);
    for (int i = 0; i < 3; i++) CHECK(rig.reap("/t", made.zxid) == Errc::bad_version);
    CHECK(rig.reap("/t", made.zxid) == Errc::ok);
}

TEST_CASE("M7 D11 a reap is of one node: not of another at that path, nor of another kind") {
    Rig rig;
    const SessionId id = rig.open(1);
    const Zxid first = rig.create(id, "/c", "", CreateMode::container).zxid;
    rig.create(id, "/c/x"), rig.remove(id, "/c/x"), rig.remove(id, "/c");
    const Zxid second = rig.create(id, "/c", "", CreateMode::container).zxid;
    rig.create(id, "/c/x"), rig.remove(id, "/c/x");
    const Zxid plain = rig.create(id, "/p").zxid;
    rig.create(id, "/p/x"), rig.remove(id, "/p/x");
    const Zxid owned = rig.create(id, "/e", "", CreateMode::ephemeral).zxid;
    rig.heard.lines.clear();
    const std::uint64_t digest = rig.machine.digest();
    CHECK(rig.reap("/c", first) == Errc::no_node);
    CHECK(rig.reap("/p", plain) == Errc::bad_version);
    CHECK(rig.reap("/e", owned) == Errc::bad_version);
    CHECK(rig.reap("/", Zxid{}) == Errc::bad_version);
    CHECK(rig.reap("", Zxid{}) == Errc::bad_version);
    CHECK(rig.reap("/none", first) == Errc::no_node);
    for (const Bytes& body : {Bytes{}, reap_body("/c", second) + "x", Bytes(4, '\xff'),
                              reap_body("/c", second).substr(0, 9)}) {
        const Outcome* const outcome = rig.apply(SessionId{}, 0, OpCode::reap, body);
        REQUIRE(outcome != nullptr);
        CHECK(outcome->error == Errc::marshalling_error);
    }
    CHECK(rig.machine.digest() == digest);
    CHECK(rig.heard.lines.empty());
    CHECK(rig.reap("/c", second) == Errc::ok);
}

TEST_CASE("null is what was asked for: by a create, a set, and on after a load") {
    Rig rig, copy;
    const SessionId id = rig.open(1);
    CHECK(rig.create(id, "/a", coord::null_data).stat.data_length == 0);
    CHECK(coord::is_null(rig.machine.tree().find("/a")->data));
    rig.set(id, "/a", "");
    CHECK_FALSE(coord::is_null(rig.machine.tree().find("/a")->data));
    rig.set(id, "/a", "some"), rig.set(id, "/a", coord::null_data);
    CHECK(coord::is_null(rig.machine.tree().find("/a")->data));
    REQUIRE(copy.machine.load(rig.saved()) == Errc::ok);
    CHECK(coord::is_null(copy.machine.tree().find("/a")->data));
    CHECK(copy.machine.digest() == rig.machine.digest());
    const Outcome body = rig.next(id, OpCode::create, create_body(coord::null_data, "", {}));
    CHECK(body.error == Errc::bad_arguments);  // no path is null
    Bytes null_path = create_body("", "", {});
    Writer(null_path).patch_u32(0, UINT32_MAX);
    CHECK(rig.next(id, OpCode::create, null_path).error == Errc::marshalling_error);
}

TEST_CASE("M1 M7 a reap gives the same on every replica, wherever its nodes are") {
    Rig rig, copy({}, 9);
    const SessionId id = rig.open(1);
    const auto ttl = CreateMode::persistent_with_ttl;
    for (int i = 0; i < 20; i++) {
        const Bytes path = "/t" + std::to_string(i);
        rig.create(id, path, "", i % 2 == 0 ? ttl : CreateMode::container, i % 2 == 0 ? 30 : 0);
        rig.create(id, path + "/x");
        if (i % 3 != 0) rig.remove(id, path + "/x");
    }
    REQUIRE(copy.machine.load(rig.saved()) == Errc::ok);
    copy.machine.audit();
    copy.counter = rig.counter;
    int reaped = 0;
    for (int i = 0; i < 20; i++) {
        const Bytes path = "/t" + std::to_string(i);
        const Zxid czxid = rig.machine.tree().find(path)->stat.czxid;
        const Errc error = rig.reap(path, czxid);
        CHECK(copy.reap(path, czxid) == error);
        CHECK(copy.machine.digest() == rig.machine.digest());
        reaped += error == Errc::ok ? 1 : 0;
    }
    CHECK(reaped > 5);
    CHECK(copy.records() == rig.records());
}

TEST_CASE("create: a ttl where it has no place, or none where it has, in a log too") {
    Rig rig;
    const SessionId id = rig.open(1);
    const auto ttl = CreateMode::persistent_with_ttl;
    CHECK(rig.create(id, "/b", "", ttl).error == Errc::bad_arguments);
    CHECK(rig.create(id, "/b", "", ttl, -1).error == Errc::bad_arguments);
    CHECK(rig.create(id, "/b", "", ttl, coord::ttl_ms_max + 1).error == Errc::bad_arguments);
    CHECK(rig.create(id, "/b", "", CreateMode::container, 5).error == Errc::bad_arguments);
    CHECK(rig.create(id, "/b", "", CreateMode::ephemeral, 5).error == Errc::bad_arguments);
    CHECK(rig.create(id, "/none/b", "", ttl).error == Errc::bad_arguments);  // before the path
    CHECK(rig.machine.tree().size() == 4);
    CHECK(rig.create(id, "/b", "", ttl, coord::ttl_ms_max).error == Errc::ok);
    CHECK(rig.create(id, "/b/", "", CreateMode::persistent_sequential_with_ttl, 1).path ==
          "/b/0000000000");
    CHECK(rig.create(id, "/c", "", CreateMode::container).error == Errc::ok);
    CHECK(rig.create(id, "/c/e", "", CreateMode::ephemeral).error == Errc::ok);
}

// There a container's flag and its operation's code may differ, and replicas with them.
TEST_CASE("ZooKeeper B13: what a node is its mode says alone, here, in a state, and in a multi") {
    const CreateMode modes[] = {CreateMode::persistent, CreateMode::container,
                                CreateMode::persistent_with_ttl,
                                CreateMode::persistent_sequential_with_ttl, CreateMode::ephemeral};
    Rig rig, other;
    const SessionId one = rig.open(1), two = other.open(1);
    for (std::size_t i = 0; i < 5; i++) {
        const Bytes path = "/of-" + std::to_string(i);
        const std::int64_t ttl_ms = coord::has_ttl(modes[i]) ? 500 : 0;
        const Outcome alone = rig.create(one, path, "d", modes[i], ttl_ms);
        const Outcome part = other.next(
            two, OpCode::multi,
            machine::multi_body(
                {{OpCode::create, machine::create_body(path, "d", modes[i], ttl_ms)}}));
        REQUIRE(alone.error == Errc::ok);
        REQUIRE(part.error == Errc::ok);
        const Bytes made = alone.path;
        CHECK(part.parts[0].path == made);
        const auto life = rig.machine.tree().life(made);
        REQUIRE(life.has_value());
        CHECK((life->kind == coord::NodeKind::container) == (modes[i] == CreateMode::container));
        CHECK(life->ttl_ms == ttl_ms);
        CHECK((life->owner == one) == (modes[i] == CreateMode::ephemeral));
    }
    CHECK(rig.machine.tree().digest() == other.machine.tree().digest());
    Machine loaded(Limits{}, 3);
    REQUIRE(loaded.load(rig.saved()) == Errc::ok);
    CHECK(loaded.digest() == rig.machine.digest());
    loaded.audit();
    // A mode that is none, and a ttl with a mode that has none, change nothing anywhere.
    const std::uint64_t digest = rig.machine.tree().digest();
    CHECK(rig.create(one, "/x", "", static_cast<CreateMode>(7)).error != Errc::ok);
    CHECK(rig.create(one, "/x", "", CreateMode::container, 500).error != Errc::ok);
    CHECK(rig.create(one, "/x", "", CreateMode::persistent_with_ttl).error != Errc::ok);
    CHECK(rig.machine.tree().digest() == digest);
}

TEST_CASE("ZooKeeper B13: an operation that nobody knows is numbered and changes nothing") {
    Rig rig;
    const SessionId id = rig.open(1);
    const std::uint64_t digest = rig.machine.tree().digest();
    CHECK(rig.next(id, static_cast<OpCode>(0), "").error == Errc::unimplemented);
    CHECK(rig.next(id, static_cast<OpCode>(200), "").error == Errc::unimplemented);
    CHECK(rig.machine.tree().digest() == digest);
    CHECK(rig.machine.find_session(id)->cxid == 2);
}

TEST_CASE("a request of a session that is not there: session_expired") {
    Rig rig;
    const Bytes body = create_body("/a", "", CreateMode::persistent);
    const Outcome* outcome = rig.apply(SessionId{99}, 5, OpCode::create, body);
    REQUIRE(outcome != nullptr);
    CHECK(outcome->error == Errc::session_expired);
    CHECK(outcome->session == SessionId{99});
    CHECK(outcome->cxid == 5);
    outcome = rig.apply(SessionId{99}, 0, OpCode::close_session, BytesView("\1", 1));
    CHECK(outcome->error == Errc::session_expired);
    CHECK(rig.machine.tree().size() == 4);
    CHECK(rig.machine.applied() == Zxid{1, 2});
}

TEST_CASE("M2 a request executed once is void when it comes again") {
    Rig rig;
    const SessionId id = rig.open(1);
    const Bytes body = create_body("/s-", "", CreateMode::persistent_sequential);
    REQUIRE(rig.apply(id, 1, OpCode::create, body) != nullptr);
    const std::uint64_t digest = rig.machine.digest();
    CHECK(rig.apply(id, 1, OpCode::create, body) == nullptr);
    CHECK(rig.apply(id, 0, OpCode::create, body) == nullptr);
    CHECK(rig.machine.digest() == digest);
    CHECK(rig.machine.tree().size() == 5);
    CHECK(rig.machine.applied() == Zxid{1, 4});
}

TEST_CASE("M2 a request with a gap before it is void, and can come later in its turn") {
    Rig rig;
    const SessionId id = rig.open(1);
    const Bytes body = create_body("/s-", "", CreateMode::persistent_sequential);
    CHECK(rig.apply(id, 2, OpCode::create, body) == nullptr);
    CHECK(rig.apply(id, UINT64_MAX, OpCode::create, body) == nullptr);
    CHECK(rig.apply(id, 3, OpCode::close_session, BytesView("\0", 1)) == nullptr);
    REQUIRE(rig.apply(id, 1, OpCode::create, body) != nullptr);
    REQUIRE(rig.apply(id, 2, OpCode::create, body) != nullptr);
    CHECK(rig.machine.find_session(id)->cxid == 2);
    CHECK(rig.machine.tree().size() == 6);
}

TEST_CASE("M2 a failed request has used up its number too") {
    Rig rig;
    const SessionId id = rig.open(1);
    REQUIRE(rig.apply(id, 1, OpCode::remove, remove_body("/x", -1))->error == Errc::no_node);
    CHECK(rig.apply(id, 1, OpCode::remove, remove_body("/x", -1)) == nullptr);
    CHECK(rig.machine.find_session(id)->cxid == 1);
    CHECK(rig.machine.find_session(id)->outcome_of(1)->error == Errc::no_node);
}

TEST_CASE("outcomes are kept until the caller has confirmed them") {
    Rig rig;
    const SessionId id = rig.open(1);
    const Bytes body = create_body("/s-", "", CreateMode::persistent_sequential);
    for (std::uint64_t cxid = 1; cxid <= 5; cxid++) rig.apply(id, cxid, OpCode::create, body);
    const coord::SessionRecord* const record = rig.machine.find_session(id);
    for (std::uint64_t cxid = 1; cxid <= 5; cxid++) {
        REQUIRE(record->outcome_of(cxid) != nullptr);
        CHECK(record->outcome_of(cxid)->cxid == cxid);
        CHECK(record->outcome_of(cxid)->path == "/s-000000000" + std::to_string(cxid - 1));
    }
    CHECK(record->outcome_of(0) == nullptr);
    CHECK(record->outcome_of(6) == nullptr);
    CHECK(record->outcome_of(UINT64_MAX) == nullptr);

    rig.apply(id, 6, OpCode::create, body, 3);
    CHECK(record->confirmed == 3);
    CHECK(record->outcomes.size() == 3);
    CHECK(record->outcome_of(3) == nullptr);
    CHECK(record->outcome_of(4)->path == "/s-0000000003");
    CHECK(record->outcome_of(6)->path == "/s-0000000005");

    rig.apply(id, 7, OpCode::create, body, 2);  // an older word does not take it back
    CHECK(record->confirmed == 3);
    CHECK(record->outcome_of(4) != nullptr);

    rig.apply(id, 8, OpCode::create, body, UINT64_MAX);  // nobody confirms what comes now
    CHECK(record->confirmed == 7);
    CHECK(record->outcomes.size() == 1);
    CHECK(record->outcome_of(8)->path == "/s-0000000007");
}

TEST_CASE("outcome_of before anything was executed") {
    const coord::SessionRecord record;
    CHECK(record.outcome_of(0) == nullptr);
    CHECK(record.outcome_of(1) == nullptr);
}

TEST_CASE("M3 an ephemeral removed by another session leaves its owner's list") {
    Rig rig;
    const SessionId owner = rig.open(1), other = rig.open(2);
    rig.create(owner, "/e", "", CreateMode::ephemeral);
    CHECK(rig.machine.tree().owned(owner) == 1);
    CHECK(rig.machine.tree().find("/e")->stat.ephemeral_owner == owner);
    CHECK(rig.remove(other, "/e").error == Errc::ok);
    CHECK(rig.machine.tree().owned(owner) == 0);
    CHECK(rig.create(other, "/e", "", CreateMode::ephemeral).error == Errc::ok);
    rig.next(owner, OpCode::close_session, BytesView("\0", 1));
    CHECK(rig.machine.tree().contains("/e"));  // it is the other's
}

TEST_CASE("ZooKeeper B11 (M4): close takes a thousand ephemerals at once, in order of paths") {
    Rig rig;
    const SessionId owner = rig.open(1), other = rig.open(2);
    rig.create(other, "/dir");
    for (int i = 0; i < 1000; i++) {
        const char* const path = i % 2 == 0 ? "/dir/e-" : "/e-";
        REQUIRE(rig.create(owner, path, "x", CreateMode::ephemeral_sequential).error == Errc::ok);
    }
    rig.create(other, "/dir/mine", "", CreateMode::ephemeral);
    rig.create(owner, "/stays");
    rig.heard.lines.clear();
    const Zxid before = rig.machine.applied();
    const Outcome closed = rig.next(owner, OpCode::close_session, BytesView("\0", 1));
    CHECK(closed.error == Errc::ok);
    CHECK(rig.machine.applied() == Zxid{before.value + 1});
    CHECK(rig.machine.find_session(owner) == nullptr);
    CHECK(rig.machine.tree().size() == 4 + 3);
    CHECK(rig.machine.tree().contains("/dir/mine"));
    CHECK(rig.machine.tree().contains("/stays"));
    REQUIRE(rig.heard.lines.size() == 2000);
    CHECK(rig.heard.lines[0].substr(0, 25) == "deleted /dir/e-0000000000");
    CHECK(rig.heard.lines[1].substr(0, 13) == "children /dir");
    CHECK(rig.heard.lines[2].substr(0, 25) == "deleted /dir/e-0000000001");
    CHECK(rig.heard.lines[1001].substr(0, 11) == "children / ");
    const std::string zxid = " " + std::to_string(rig.machine.applied().counter());
    for (const std::string& line : rig.heard.lines) {
        CHECK(line.substr(line.size() - zxid.size()) == zxid);
    }
}

TEST_CASE("close by the leader needs no number; nothing of the session is executed after it") {
    Rig rig;
    const SessionId id = rig.open(1);
    rig.create(id, "/e", "", CreateMode::ephemeral);
    const Outcome* outcome = rig.apply(id, 0, OpCode::close_session, BytesView("\1", 1));
    REQUIRE(outcome != nullptr);
    CHECK(outcome->error == Errc::ok);
    CHECK(outcome->session == id);
    CHECK_FALSE(rig.machine.tree().contains("/e"));
    outcome = rig.apply(id, 2, OpCode::create, create_body("/late", "", {}));
    REQUIRE(outcome != nullptr);
    CHECK(outcome->error == Errc::session_expired);
    CHECK_FALSE(rig.machine.tree().contains("/late"));
}

TEST_CASE("M1 the same transactions give the same state under any seed of the hashes") {
    Rig one({}, 1), two({}, 0xfeedface);
    for (Rig* const rig : {&one, &two}) {
        const SessionId id = rig->open(5), other = rig->open(6);
        rig->create(id, "/a", "data");
        rig->create(id, "/a/e-", "x", CreateMode::ephemeral_sequential);
        rig->create(other, "/b");
        rig->remove(other, "/b");
        rig->set(other, "/a", "more");
        rig->next(other, OpCode::close_session, BytesView("\0", 1));
    }
    CHECK(one.machine.digest() == two.machine.digest());
    CHECK(one.records() == two.records());
}

TEST_CASE("the digest covers every field of a session and follows its changes back") {
    const auto digest_with = [](std::uint64_t nonce, std::uint32_t timeout_ms, int requests,
                                std::uint64_t confirmed) {
        Rig rig;
        const SessionId id = rig.open(nonce, timeout_ms);
        for (int i = 1; i <= requests; i++) {
            const bool last = i == requests;
            rig.apply(id, static_cast<std::uint64_t>(i), OpCode::remove, remove_body("/x", -1),
                      last ? confirmed : 0);
        }
        return rig.machine.digest();
    };
    const std::uint64_t base = digest_with(1, 1000, 2, 0);
    CHECK(digest_with(1, 1000, 2, 0) == base);
    CHECK(digest_with(2, 1000, 2, 0) != base);
    CHECK(digest_with(1, 1001, 2, 0) != base);
    CHECK(digest_with(1, 1000, 3, 0) != base);
    CHECK(digest_with(1, 1000, 2, 1) != base);
    Rig rig;
    const std::uint64_t fresh = rig.machine.digest();
    const SessionId id = rig.open(1);
    CHECK(rig.machine.digest() != fresh);
    rig.next(id, OpCode::close_session, BytesView("\0", 1));
    CHECK(rig.machine.digest() == fresh);
}

static bool is_sound(BytesView state, Zxid zxid, const Limits& limits = {}) {
    coord::StateCheck check(limits);
    check.feed(state);
    return check.is_sound(zxid);
}

// A state with everything in it: two sessions, outcomes good and bad, ephemerals, deep paths.
static void fill(Rig& rig) {
    const SessionId one = rig.open(11, 4000), two = rig.open(22, 8000);
    rig.create(one, "/a", "data of a");
    rig.create(one, "/a/b", Bytes(300, 'z'));
    rig.create(one, "/a/b/e-", "eph", CreateMode::ephemeral_sequential);
    rig.create(two, "/f", "", CreateMode::ephemeral);
    rig.create(two, "/f");
    rig.set(one, "/a", "new data");
    rig.remove(two, "/nothing");
    const Bytes body = set_body("/a", "confirmed", -1);
    rig.apply(one, ++rig.cxids[one], OpCode::set, body, 2);
}

TEST_CASE("save and load: the same state, which goes on in the same way") {
    Rig rig;
    fill(rig);
    const Bytes bytes = rig.saved();
    Rig copy({}, 99);
    copy.open(123);  // it is replaced
    REQUIRE(copy.machine.load(bytes) == Errc::ok);
    copy.machine.audit();
    copy.counter = rig.counter, copy.cxids = rig.cxids;
    CHECK(copy.machine.digest() == rig.machine.digest());
    CHECK(copy.machine.applied() == rig.machine.applied());
    CHECK(copy.records() == rig.records());
    CHECK(copy.machine.find_nonce(123) == nullptr);
    const SessionId one = rig.machine.find_nonce(11)->id;
    const coord::SessionRecord* const loaded = copy.machine.find_session(one);
    REQUIRE(loaded != nullptr);
    CHECK(loaded->timeout_ms == 4000);
    CHECK(copy.machine.tree().owned(one) == 1);
    CHECK(loaded->confirmed == 2);
    CHECK(loaded->outcome_of(2) == nullptr);
    CHECK(loaded->outcome_of(3)->path == "/a/b/e-0000000000");
    CHECK(loaded->outcome_of(4)->stat.version == 1);
    for (Rig* const each : {&rig, &copy}) {
        each->create(one, "/a/b/e-", "", CreateMode::ephemeral_sequential);
        each->next(one, OpCode::close_session, BytesView("\0", 1));
    }
    CHECK(copy.machine.digest() == rig.machine.digest());
    CHECK(copy.records() == rig.records());
    CHECK(copy.machine.tree().find("/a/b")->stat.num_children == 0);
}

TEST_CASE("save appends to what is there") {
    Rig rig;
    fill(rig);
    Bytes out = "before";
    rig.machine.begin_save();
    while (!rig.machine.save_slice(50, out)) {
    }
    CHECK(out.substr(0, 6) == "before");
    CHECK(Rig{}.machine.load(BytesView(out).substr(6)) == Errc::ok);
    CHECK(support::sorted_records(out.substr(6)) == rig.records());
}

TEST_CASE("load: a state cut at any length is corrupt, and leaves a fresh machine") {
    Rig rig;
    fill(rig);
    const Bytes bytes = rig.saved();
    const std::uint64_t fresh = Rig{}.machine.digest();
    Rig copy;
    for (std::size_t size = 0; size < bytes.size(); size++) {
        CAPTURE(size);
        REQUIRE(copy.machine.load(BytesView(bytes).substr(0, size)) == Errc::corrupt);
        REQUIRE(copy.machine.digest() == fresh);
        REQUIRE_FALSE(is_sound(BytesView(bytes).substr(0, size), rig.machine.applied()));
    }
    CHECK_FALSE(is_sound(bytes + "x", rig.machine.applied()));
    CHECK(copy.machine.load(bytes + "x") == Errc::corrupt);
    CHECK(copy.machine.applied() == Zxid{});
    CHECK(copy.machine.sessions().empty());
    CHECK(copy.machine.tree().size() == 4);
    copy.machine.audit();
}

TEST_CASE("load: no flipped bit passes") {
    Rig rig;
    fill(rig);
    Bytes bytes = rig.saved();
    Rig copy;
    for (std::size_t i = 0; i < bytes.size(); i++) {
        for (int bit = 0; bit < 8; bit++) {
            bytes[i] = static_cast<char>(bytes[i] ^ (1 << bit));
            CAPTURE(i);
            CAPTURE(bit);
            const bool is_format = i == 5 + 7;  // the last byte of the magic
            REQUIRE(copy.machine.load(bytes) ==
                    (is_format ? Errc::other_version : Errc::corrupt));
            REQUIRE_FALSE(is_sound(bytes, rig.machine.applied()));
            bytes[i] = static_cast<char>(bytes[i] ^ (1 << bit));
        }
    }
    CHECK(copy.machine.load(bytes) == Errc::ok);
}

TEST_CASE("load: hostile bytes whose checksum is right are refused or make a sound state") {
    Rig rig;
    fill(rig);
    const Bytes good = rig.saved();
    Bytes bytes = good;
    std::size_t accepted = 0;
    for (std::size_t i = 0; i + 4 < bytes.size(); i++) {
        for (const int change : {1, 0x80, 0xff}) {
            bytes[i] = static_cast<char>(good[i] ^ change);
            Writer(bytes).patch_u32(bytes.size() - 4,
                                    coord::crc32c(BytesView(bytes).substr(0, bytes.size() - 4)));
            Rig copy;
            const Errc error = copy.machine.load(bytes);
            const bool is_format = i == 5 + 7;
            const Errc refused = is_format ? Errc::other_version : Errc::corrupt;
            CHECK((error == Errc::ok || error == refused));
            copy.machine.audit();  // never an unsound one, whatever it says
            if (error == Errc::ok) {
                CHECK(is_sound(bytes, copy.machine.applied()));
                REQUIRE(copy.records() == support::sorted_records(bytes));
                accepted += 1;
            }
        }
        bytes[i] = good[i];
    }
    CHECK(accepted > 100);
    CHECK(accepted < good.size() * 3 / 2);  // the digest catches what is not an outcome
}

TEST_CASE("M9 silence is what a leader says of it, of sessions that are there") {
    Rig rig;
    const SessionId first = rig.open(1, 4000), second = rig.open(2, 4000);
    const std::uint64_t before = rig.machine.digest();
    const auto silence = [&](std::initializer_list<std::pair<SessionId, std::uint32_t>> said,
                             BytesView tail = {}) {
        Bytes body;
        Writer out(body);
        for (const auto& each : said) out.u64(each.first.value), out.u32(each.second);
        body += tail;
        const Outcome* const outcome = rig.apply(SessionId{}, 0, OpCode::silence, body);
        REQUIRE(outcome != nullptr);
        CHECK(outcome->session == SessionId{});
        return outcome->error;
    };
    CHECK(silence({{first, 1000}, {SessionId{99}, 5}, {second, 5000}}) == Errc::ok);
    CHECK(rig.machine.find_session(first)->silent_ms == 1000);
    CHECK(rig.machine.find_session(second)->silent_ms == 4000);  // no more than there is
    CHECK(rig.machine.sessions().size() == 2);
    CHECK(rig.machine.digest() != before);
    Rig copy;
    REQUIRE(copy.machine.load(rig.saved()) == Errc::ok);
    CHECK(copy.machine.find_session(first)->silent_ms == 1000);
    CHECK(copy.machine.digest() == rig.machine.digest());
    CHECK(silence({{first, 0}}, "torn") == Errc::marshalling_error);
    CHECK(silence({{second, 0}}) == Errc::ok);
    CHECK(rig.machine.digest() == before);
    CHECK(silence({}) == Errc::ok);

    Bytes state;
    CHECK(silence({{first, 1000}}) == Errc::ok);
    rig.machine.begin_save();
    CHECK(silence({{first, 3000}}) == Errc::ok);  // T5: not part of what is saved
    while (!rig.machine.save_slice(1000, state)) {}
    Rig earlier;
    REQUIRE(earlier.machine.load(state) == Errc::ok);
    CHECK(earlier.machine.find_session(first)->silent_ms == 1000);

    Bytes holder;
    Writer(holder).u64(7);
    rig.apply(first, coord::next_holding(0), OpCode::attach_session, holder);
    CHECK(rig.machine.find_session(first)->holder == 7);
    CHECK(rig.machine.find_session(first)->silent_ms == 0);  // M8: a sign of life
}

TEST_CASE("load: limits are looked at") {
    Rig rig;
    fill(rig);
    Limits limits;
    limits.sessions_max = 1;
    CHECK(Rig{limits}.machine.load(rig.saved()) == Errc::corrupt);
    limits = {};
    limits.nodes_max = 7;
    CHECK(Rig{limits}.machine.load(rig.saved()) == Errc::corrupt);
    limits = {};
    limits.data_bytes_max = 299;
    CHECK(Rig{limits}.machine.load(rig.saved()) == Errc::corrupt);
    limits.data_bytes_max = 300;
    CHECK(Rig{limits}.machine.load(rig.saved()) == Errc::ok);
}

// The golden bytes are red when the format of snapshots changes: then old snapshots cannot be read
// any more, and that needs a reason.
TEST_CASE("golden: the state after one session has created one node") {
    Rig rig;
    const SessionId id = rig.open(0x0102030405060708, 5000);
    rig.create(id, "/a", "hi", CreateMode::ephemeral);
    const char* const golden =
        "01" "00000018"                     // the head
        "636f6f7264737435"                  // "coordst5"
        "0000010000000002"                  // zxid 1.2
        "a1d4f85ab47011f7"                  // the digest
        "02" "000000ab"                     // a session
        "0000010000000001"                  // its id
        "0102030405060708" "00001388" "00000000"  // nonce, timeout, silence
        "0306090c0f121518" "050a0f14191e2328" "0000000000000000"  // password, holder
        "0000000000000001" "0000000000000000"  // cxid, confirmed
        "00000000"                          // no identities
        "00000001"                          // one outcome
        "0000000000000001" "0000010000000002" "03" "00000000"  // cxid, zxid, create, ok
        "00000002" "2f61"                   // path
        "0000010000000002" "0000010000000002" "00000000000003ea" "00000000000003ea"
        "00000000" "0000000000000000" "00000000" "0000010000000001"
        "00000002" "00000000" "0000010000000002"  // the stat
        "03" "0000004e"                     // the root
        "00000001" "2f" "00000000"          // path, data
        "0000000000000000" "0000000000000000" "0000010000000002"  // czxid, mzxid, pzxid
        "0000000000000000" "0000000000000000" "0000000000000000"  // ctime, mtime, owner
        "00000000" "00000000" "0000000000000001" "00000002" "00"  // versions, ..., kind
        "03" "00000057"
        "0000000a" "2f7a6f6f6b6565706572" "00000000"
        "0000000000000000" "0000000000000000" "0000000000000000"
        "0000000000000000" "0000000000000000" "0000000000000000"
        "00000000" "00000000" "0000000000000000" "00000002" "00"
        "03" "00000079"
        "00000011" "2f7a6f6f6b65657065722f636f6e666967" "00000000"
        "0000000000000000" "0000000000000000" "0000000000000000"
        "0000000000000000" "0000000000000000" "0000000000000000"
        "00000000" "ffffffff" "0000000000000000" "00000000" "04"
        "00000017" "00000001" "00000005" "776f726c64" "00000006" "616e796f6e65"  // its ACL
        "03" "0000005d"
        "00000010" "2f7a6f6f6b65657065722f71756f7461" "00000000"
        "0000000000000000" "0000000000000000" "0000000000000000"
        "0000000000000000" "0000000000000000" "0000000000000000"
        "00000000" "00000000" "0000000000000000" "00000000" "00"
        "03" "00000051"
        "00000002" "2f61" "00000002" "6869"
        "0000010000000002" "0000010000000002" "0000010000000002"
        "00000000000003ea" "00000000000003ea" "0000010000000001"
        "00000000" "00000000" "0000000000000000" "00000000" "01"
        "00" "0000000c"                     // the end
        "00000001" "00000005" "567cf3b4";   // one session, five nodes, the checksum
    CHECK(support::hex(rig.saved()) == golden);
    Rig copy;
    CHECK(copy.machine.load(support::unhex(golden)) == Errc::ok);
    CHECK(copy.machine.digest() == rig.machine.digest());
}

// ---- States that no save has written

namespace {

// What a session of that record adds to the digest. FORMAT: replicas compare digests.
std::uint64_t session_digest(std::uint64_t id, std::uint64_t nonce, std::uint64_t times,
                             std::uint64_t cxid, std::uint64_t confirmed) {
    const std::uint64_t opened = coord::mix64(coord::mix64(id, nonce), times);
    const std::uint64_t who = coord::mix64(opened, coord::mix64(coord::mix64(0, 0), 0));
    return coord::mix64(who, coord::mix64(cxid + 1, confirmed + 1));
}

// Writes a state record by record, with a digest, counts and a checksum that are right unless they
// are said to be others: so that what is refused is refused for the reason that the test has.
struct ByHand {
    Bytes records;
    std::uint64_t magic = 0x636f6f7264737435;
    Zxid zxid{1, 9};
    std::uint64_t digest = 0;
    std::uint32_t sessions = 0;
    std::uint32_t nodes = 0;
    std::uint32_t silent_ms = 0;  // of each session from here on

    ByHand& record(std::uint8_t kind, BytesView bytes) {
        Writer out(records);
        out.u8(kind), out.bytes(bytes);
        return *this;
    }
    ByHand& node(BytesView path, std::uint32_t children, std::uint64_t creations,
                 std::uint64_t owner = 0) {
        Bytes bytes;
        Writer out(bytes);
        out.bytes(path), out.bytes("");
        for (int i = 0; i < 5; i++) out.u64(0);
        out.u64(owner), out.u64(0), out.u64(creations), out.u32(children);
        out.u8(owner != 0 ? 1 : 0);
        std::uint64_t added = 0;
        (void)coord::Tree::digest_of_record(bytes, {}, added);
        digest += added, nodes += 1;
        return record(3, bytes);
    }
    ByHand& built_in(std::uint32_t children = 1, std::uint64_t creations = 0) {
        node("/", children, creations).node("/zookeeper", 2, 0);
        return node("/zookeeper/config", 0, 0).node("/zookeeper/quota", 0, 0);
    }
    // With the outcomes of `confirmed` + 1 to `cxid`, each of them moved by `shift`.
    ByHand& session(std::uint64_t id, std::uint64_t nonce, std::uint64_t cxid = 0,
                    std::uint64_t confirmed = 0, std::uint64_t shift = 0, BytesView path = "/") {
        Bytes bytes;
        Writer out(bytes);
        out.u64(id), out.u64(nonce), out.u32(1000), out.u32(silent_ms);
        out.u64(0), out.u64(0), out.u64(0);
        out.u64(cxid), out.u64(confirmed), out.bytes("");
        out.u32(static_cast<std::uint32_t>(cxid - confirmed));
        for (std::uint64_t i = confirmed + 1; i <= cxid; i++) {
            out.u64(i + shift), out.u64(1), out.u8(4), out.i32(0), out.bytes(path);
            out.raw(Bytes(72, '\0'));
        }
        const std::uint64_t times = std::uint64_t{silent_ms} << 32 | 1000;
        digest += session_digest(id, nonce, times, cxid, confirmed), sessions += 1;
        return record(2, bytes);
    }
    Bytes head() const {
        Bytes bytes;
        Writer out(bytes);
        out.u8(1), out.u32(24), out.u64(magic), out.zxid(zxid), out.u64(digest);
        return bytes;
    }
    static Bytes ended(Bytes bytes, std::uint32_t sessions, std::uint32_t nodes) {
        Writer out(bytes);
        out.u8(0), out.u32(12), out.u32(sessions), out.u32(nodes);
        out.u32(coord::crc32c(bytes));
        return bytes;
    }
    Bytes done() const { return ended(head() + records, sessions, nodes); }
};

Errc load(BytesView state, const Limits& limits = {}) {
    Rig rig(limits);
    const Errc error = rig.machine.load(state);
    rig.machine.audit();
    if (error != Errc::ok) CHECK(rig.machine.digest() == Rig{}.machine.digest());
    return error;
}

// RETURNS whether both refuse.
bool refused(const ByHand& state) {
    const bool sound = is_sound(state.done(), state.zxid);
    return load(state.done()) == Errc::corrupt && !sound;
}

// For what only a load can know, for it takes more than one record to see it.
bool refused_by_load(const ByHand& state) {
    CHECK(is_sound(state.done(), state.zxid));
    return load(state.done()) == Errc::corrupt;
}

bool taken(const ByHand& state) {
    return load(state.done()) == Errc::ok && is_sound(state.done(), state.zxid);
}

}  // namespace

TEST_CASE("load: what holds together is taken, by hand too") {
    CHECK(taken(ByHand{}.built_in()));
    CHECK(taken(ByHand{}.built_in().session(5, 50).session(6, 60)));
    CHECK(taken(ByHand{}.session(6, 60).built_in().session(5, 50)));
    CHECK(taken(ByHand{}.built_in().session(5, 50, 7, 4)));
    CHECK(taken(ByHand{}.built_in().session(5, 50, UINT64_MAX - 1, UINT64_MAX - 3)));
    CHECK(taken(ByHand{}.node("/e", 0, 0, 5).built_in(2, 1).session(5, 0)));
    ByHand old = ByHand{}.built_in();
    old.zxid = Zxid{};
    CHECK(taken(old));
}

TEST_CASE("load: each rule of a state, broken by hand") {
    SUBCASE("what stands first") {
        ByHand state = ByHand{}.built_in();
        for (const std::uint64_t other : {0x636f6f7264737434u, 0x636f6f7264737436u}) {
            ByHand foreign = ByHand{}.built_in();
            foreign.magic = other;  // a format before this one, or after it
            const Bytes bytes = ByHand::ended(foreign.head() + foreign.records, 0, 4);
            CHECK(load(bytes) == Errc::other_version);
        }
        state.magic += 256;
        CHECK(refused(state));
        state.magic -= 256;
        CHECK(taken(state));
        CHECK(load(ByHand::ended(state.records, 0, 4)) == Errc::corrupt);
        CHECK(load(ByHand::ended(state.records + state.head(), 0, 4)) == Errc::corrupt);
        CHECK(load(ByHand::ended("", 0, 0)) == Errc::corrupt);
        CHECK(load("") == Errc::corrupt);
    }
    SUBCASE("a second head") {
        const ByHand state = ByHand{}.built_in();
        const Bytes twice = ByHand::ended(state.head() + state.head() + state.records, 0, 4);
        CHECK(load(twice) == Errc::corrupt);
        CHECK(load(ByHand::ended(state.head() + state.records + state.head(), 0, 4)) ==
              Errc::corrupt);
        CHECK_FALSE(is_sound(twice, state.zxid));
    }
    SUBCASE("a kind that nobody knows") {
        for (const int kind : {4, 5, 128, 255}) {
            CHECK(refused(ByHand{}.built_in().record(static_cast<std::uint8_t>(kind), "x")));
        }
    }
    SUBCASE("something behind the end") {
        const Bytes state = ByHand{}.built_in().done();
        CHECK(load(state + state) == Errc::corrupt);
        CHECK(load(state + '\0') == Errc::corrupt);
        CHECK(load(ByHand::ended(state, 0, 4)) == Errc::corrupt);
        CHECK(load(state + ByHand{}.node("/a", 0, 0).records) == Errc::corrupt);
        // Announced, but late: all the numbers are right.
        ByHand late = ByHand{}.built_in(2, 1);
        const Bytes before = late.records;
        late.node("/a", 0, 0);
        CHECK(taken(late));
        const Bytes behind = late.records.substr(before.size());
        CHECK(load(ByHand::ended(late.head() + before, 0, 5) + behind) == Errc::corrupt);
        CHECK_FALSE(is_sound(ByHand::ended(late.head() + before, 0, 5) + behind, late.zxid));
        coord::StateCheck check{Limits{}};
        check.feed(state);
        CHECK(check.is_sound(Zxid{1, 9}));
        check.feed("");
        CHECK(check.is_sound(Zxid{1, 9}));
        check.feed("x");
        CHECK_FALSE(check.is_sound(Zxid{1, 9}));
    }
    SUBCASE("an end of another size") {
        for (const std::size_t size : {0u, 3u, 4u, 11u, 13u}) {
            Bytes bytes = ByHand{}.built_in().done();
            bytes.resize(bytes.size() - 17);
            Writer out(bytes);
            out.u8(0), out.bytes(Bytes(size, '\0'));
            CHECK(load(bytes) == Errc::corrupt);
            CHECK_FALSE(is_sound(bytes, Zxid{1, 9}));
        }
    }
    SUBCASE("counts and a digest that are not so") {
        ByHand state = ByHand{}.built_in().session(5, 50);
        state.nodes += 1;
        CHECK(refused(state));
        state.nodes -= 2;
        CHECK(refused(state));
        state.nodes += 1, state.sessions -= 1;
        CHECK(refused(state));
        state.sessions += 2;
        CHECK(refused(state));
        state.sessions -= 1, state.digest += 1;
        CHECK(refused(state));
        state.digest -= 1;
        CHECK(taken(state));
    }
    SUBCASE("a session that is silent for longer than it may be") {
        ByHand state = ByHand{}.built_in();
        state.silent_ms = 1000;
        CHECK(taken(state.session(5, 50)));
        state.silent_ms = 1001;
        CHECK(refused(state.session(6, 60)));
    }
    SUBCASE("a node or a session twice") {
        CHECK(refused_by_load(ByHand{}.built_in().node("/", 1, 0)));
        CHECK(refused_by_load(ByHand{}.built_in(3, 2).node("/a", 0, 0).node("/a", 0, 0)));
        CHECK(refused_by_load(ByHand{}.built_in().session(5, 50).session(5, 50)));
        CHECK(refused_by_load(ByHand{}.built_in().session(5, 50).session(5, 51)));
        CHECK(refused_by_load(ByHand{}.built_in().session(5, 50).session(6, 50)));
    }
    SUBCASE("a tree that does not hold together") {
        CHECK(refused_by_load(ByHand{}));
        CHECK(refused_by_load(ByHand{}.node("/zookeeper", 0, 0)));
        CHECK(refused_by_load(ByHand{}.built_in().node("/a/b", 0, 0)));
        CHECK(refused_by_load(ByHand{}.built_in(2, 1)));
        CHECK(refused(ByHand{}.built_in(2, 1).node("/a/", 0, 0)));
        CHECK(refused(ByHand{}.built_in(2, 1).session(5, 50).node("/a", 1, 1, 5)));
    }
    SUBCASE("an ephemeral node whose owner is no session") {
        CHECK(refused_by_load(ByHand{}.built_in(2, 1).node("/e", 0, 0, 5)));
        CHECK(refused_by_load(ByHand{}.built_in(2, 1).node("/e", 0, 0, 5).session(6, 60)));
        CHECK(refused_by_load(ByHand{}
                                  .built_in(3, 2)
                                  .session(5, 50)
                                  .node("/e", 0, 0, 5)
                                  .node("/f", 0, 0, 6)));
        CHECK(refused_by_load(
            ByHand{}.built_in(2, 1).session(5, 50).node("/e", 0, 0, 5).node("/e/x", 0, 0)));
    }
    SUBCASE("sessions that cannot be") {
        CHECK(refused(ByHand{}.built_in().session(0, 50)));
        CHECK(refused_by_load(ByHand{}.built_in().session(Zxid(1, 10).value, 50)));
        CHECK(taken(ByHand{}.built_in().session(Zxid(1, 9).value, 50)));
        CHECK(refused(ByHand{}.built_in().session(5, 50, 3, 4)));
        CHECK(refused(ByHand{}.built_in().session(5, 50, 7, 4, 1)));
        CHECK(refused(ByHand{}.built_in().session(5, 50, 7, 4, UINT64_MAX)));
        CHECK(refused(ByHand{}.built_in().session(5, 50, 7, 4, 0, Bytes(1024 + 20, 'p'))));
        CHECK(taken(ByHand{}.built_in().session(5, 50, 7, 4, 0, Bytes(1024 + 19, 'p'))));
    }
    SUBCASE("as many outcomes as there are numbers, and none of them there") {
        for (const std::uint64_t outcomes : {std::uint64_t{1}, std::uint64_t{UINT32_MAX}}) {
            Bytes bytes;
            Writer out(bytes);
            out.u64(5), out.u64(50), out.u32(1000), out.u64(0), out.u64(0), out.u64(0);
            out.u64(outcomes), out.u64(0);
            out.u32(static_cast<std::uint32_t>(outcomes));
            ByHand state = ByHand{}.built_in().record(2, bytes);
            state.sessions = 1;
            CHECK(refused(state));
        }
    }
}

TEST_CASE("load: a record longer than any is refused by its length, before its bytes are there") {
    const Bytes head = ByHand{}.head();
    Limits limits;
    limits.data_bytes_max = 100, limits.path_bytes_max = 30, limits.requests_per_session_max = 1;
    limits.multi_parts_max = 1;
    limits.acl_entries_max = limits.acl_id_bytes_max = limits.identities_per_session_max = 1;
    for (const std::uint32_t length : {4000u, 1u << 20, 0x7fffffffu, UINT32_MAX}) {
        for (const int kind : {2, 3}) {
            Bytes bytes = head;
            Writer out(bytes);
            out.u8(static_cast<std::uint8_t>(kind)), out.u32(length);
            coord::StateReader reader(limits);
            reader.feed(bytes);
            std::uint8_t got = 0;
            BytesView record;
            CHECK(reader.next(got, record));
            CHECK(reader.is_sound());
            CHECK_FALSE(reader.next(got, record));
            CHECK_FALSE(reader.is_sound());
        }
    }
}

TEST_CASE("load: the largest node and the largest session of the limits can be read again") {
    Limits limits;
    limits.path_bytes_max = 40, limits.data_bytes_max = 5000, limits.requests_per_session_max = 2;
    limits.multi_parts_max = 3;
    Rig rig(limits);
    const SessionId id = rig.open(1);
    const auto sequential = CreateMode::persistent_sequential;
    REQUIRE(rig.create(id, "/" + Bytes(39, 'n'), Bytes(5000, 'd')).error == Errc::ok);
    // Twice as many are numbered as a session has requests.
    const Bytes path = "/" + Bytes(20, 's');
    const Bytes create = create_body(path, "", sequential);
    const Bytes multi =
        multi_body({3, std::pair<OpCode, Bytes>(OpCode::create, create)});
    for (int i = 0; i < 3; i++) REQUIRE(rig.next(id, OpCode::multi, multi).error == Errc::ok);
    REQUIRE(rig.machine.find_session(id)->outcomes.size() == 4);
    Rig copy(limits);
    CHECK(copy.machine.load(rig.saved()) == Errc::ok);
    CHECK(is_sound(rig.saved(), rig.machine.applied(), limits));
    CHECK(copy.records() == rig.records());
}

TEST_CASE("load: in pieces of every size, and given up half way") {
    Rig rig;
    fill(rig);
    const Bytes bytes = rig.saved();
    Rig copy;
    for (std::size_t size = 1; size <= bytes.size() + 1; size += size < 20 ? 1 : 97) {
        CAPTURE(size);
        coord::StateCheck check{Limits{}};
        copy.machine.begin_load();
        for (std::size_t at = 0; at < bytes.size(); at += size) {
            copy.machine.load_piece(BytesView(bytes).substr(at, size));
            check.feed(BytesView(bytes).substr(at, size));
            if (at + size < bytes.size()) CHECK_FALSE(check.is_sound(rig.machine.applied()));
        }
        REQUIRE(copy.machine.end_load() == Errc::ok);
        CHECK(check.is_sound(rig.machine.applied()));
        CHECK(copy.machine.digest() == rig.machine.digest());
        copy.machine.begin_load();
        copy.machine.load_piece(BytesView(bytes).substr(0, size));
    }
    REQUIRE(copy.machine.load(bytes) == Errc::ok);
    copy.machine.audit();
    CHECK(copy.records() == rig.records());
    copy.machine.begin_load();
    CHECK(copy.machine.end_load() == Errc::corrupt);
    CHECK(copy.machine.tree().size() == 4);
}

// ---- The check that builds nothing

TEST_CASE("check: takes the state of its zxid and no other, and can be used again") {
    Rig rig, empty;
    fill(rig);
    const Bytes bytes = rig.saved();
    const Zxid zxid = rig.machine.applied();
    coord::StateCheck check{Limits{}};
    CHECK_FALSE(check.is_sound(Zxid{}));
    for (int round = 0; round < 2; round++) {
        check.feed(bytes);
        CHECK(check.is_sound(zxid));
        CHECK_FALSE(check.is_sound(Zxid{zxid.value - 1}));
        CHECK_FALSE(check.is_sound(Zxid{zxid.value + 1}));
        CHECK_FALSE(check.is_sound(Zxid{}));
        check.restart();
        CHECK_FALSE(check.is_sound(zxid));
        check.feed("nonsense");
        CHECK_FALSE(check.is_sound(zxid));
        check.feed(bytes);
        CHECK_FALSE(check.is_sound(zxid));
        check.restart();
        check.feed(BytesView(bytes).substr(0, bytes.size() / 2));
        check.restart();
    }
    check.feed(empty.saved());
    CHECK(check.is_sound(Zxid{}));
}

TEST_CASE("check: a node or a session that is not as it was when the save began") {
    Rig rig;
    fill(rig);
    const Bytes bytes = rig.saved();
    const Zxid zxid = rig.machine.applied();
    const SessionId one = rig.machine.find_nonce(11)->id;
    Bytes head = bytes.substr(0, 29);
    // Another state under the head of this one: what a save without T5 would give.
    rig.set(one, "/a", "later");
    const Bytes later = rig.saved();
    Bytes mixed = head + later.substr(29, later.size() - 29 - 17);
    CHECK_FALSE(is_sound(ByHand::ended(mixed, 2, 8), zxid));
    mixed = bytes.substr(0, bytes.size() - 17);
    CHECK(is_sound(ByHand::ended(mixed, 2, 8), zxid));
    CHECK_FALSE(is_sound(ByHand::ended(mixed, 2, 7), zxid));
    CHECK_FALSE(is_sound(ByHand::ended(mixed, 1, 8), zxid));
}

TEST_CASE("check: looks at the limits, as a load does") {
    Rig rig;
    fill(rig);
    Limits limits;
    limits.data_bytes_max = 299;
    CHECK_FALSE(is_sound(rig.saved(), rig.machine.applied(), limits));
    limits.data_bytes_max = 300;
    CHECK(is_sound(rig.saved(), rig.machine.applied(), limits));
}

// ---- A save in slices

namespace {

struct Change {
    std::string what;
    void (*make)(Rig& rig);
};

constexpr std::uint64_t first_id = (std::uint64_t{1} << 40) + 1;
const SessionId alpha{first_id}, beta{first_id + 1}, gamma{first_id + 2};

// Three sessions, one of them with ephemerals, one with outcomes, and a hole where a node was.
void fill_small(Rig& rig) {
    rig.audits = false;
    rig.open(11), rig.open(22), rig.open(33);
    rig.create(alpha, "/gone");
    rig.create(alpha, "/a", "data of a");
    rig.create(beta, "/a/e", "", CreateMode::ephemeral);
    rig.create(beta, "/e", "", CreateMode::ephemeral);
    rig.create(alpha, "/z", "z");
    rig.create(gamma, "/c", "", CreateMode::container);
    rig.create(gamma, "/c/x");
    rig.remove(alpha, "/gone");
    rig.set(gamma, "/nothing", "");
}

void request(Rig& rig, SessionId session, OpCode op, BytesView body, std::uint64_t confirmed = 0) {
    rig.apply(session, ++rig.cxids[session], op, body, confirmed);
}

void close(Rig& rig, SessionId session) {
    rig.apply(session, 0, OpCode::close_session, BytesView("\1", 1));
}

const Change changes[] = {
    {"nothing", [](Rig&) {}},
    {"a create over a free index", [](Rig& rig) {
         request(rig, alpha, OpCode::create, create_body("/new", "new", CreateMode::persistent));
     }},
    {"two creates", [](Rig& rig) {
         const auto mode = CreateMode::persistent_sequential;
         request(rig, gamma, OpCode::create, create_body("/s", "", mode));
         request(rig, gamma, OpCode::create, create_body("/a/s", "", mode));
     }},
    {"an ephemeral", [](Rig& rig) {
         request(rig, beta, OpCode::create, create_body("/f", "", CreateMode::ephemeral));
     }},
    {"a set", [](Rig& rig) { request(rig, alpha, OpCode::set, set_body("/z", "y", -1)); }},
    {"a set that moves", [](Rig& rig) {
         request(rig, gamma, OpCode::set, set_body("/a", Bytes(200, 'm'), -1));
     }},
    {"a remove", [](Rig& rig) { request(rig, alpha, OpCode::remove, remove_body("/z", -1)); }},
    {"a remove and a create again", [](Rig& rig) {
         request(rig, beta, OpCode::remove, remove_body("/z", -1));
         request(rig, beta, OpCode::create, create_body("/z", "again", CreateMode::ephemeral));
     }},
    {"a container and a node with a ttl", [](Rig& rig) {
         request(rig, alpha, OpCode::create, create_body("/f", "", CreateMode::container));
         const auto mode = CreateMode::persistent_sequential_with_ttl;
         request(rig, alpha, OpCode::create, create_body("/f/", "", mode, 500));
     }},
    {"a container used no more, and reaped", [](Rig& rig) {
         request(rig, beta, OpCode::remove, remove_body("/c/x", -1));
         rig.apply(SessionId{}, 0, OpCode::reap, reap_body("/c", Zxid(1, 9)));
     }},
    {"a reap that comes too late", [](Rig& rig) {
         rig.apply(SessionId{}, 0, OpCode::reap, reap_body("/c", Zxid(1, 9)));
     }},
    {"an ephemeral removed by another", [](Rig& rig) {
         request(rig, alpha, OpCode::remove, remove_body("/e", -1));
     }},
    {"a session opened", [](Rig& rig) {
         rig.apply(SessionId{}, 0, OpCode::open_session, open_body(44, 1));
     }},
    {"a session opened, used and closed", [](Rig& rig) {
         const SessionId id =
             rig.apply(SessionId{}, 0, OpCode::open_session, open_body(55, 1))->session;
         const Bytes body = create_body("/g", "", CreateMode::ephemeral);
         rig.apply(id, 1, OpCode::create, body), close(rig, id);
     }},
    {"a session closed with its ephemerals", [](Rig& rig) { close(rig, beta); }},
    {"a session closed, and its nonce used again", [](Rig& rig) {
         close(rig, gamma);
         rig.apply(SessionId{}, 0, OpCode::open_session, open_body(33, 1));
     }},
    {"a request that fails", [](Rig& rig) {
         request(rig, beta, OpCode::remove, remove_body("/nothing", -1));
     }},
    {"outcomes confirmed", [](Rig& rig) {
         request(rig, alpha, OpCode::remove, remove_body("/nothing", -1), 3);
     }},
    {"a multi", [](Rig& rig) {
         request(rig, alpha, OpCode::multi,
                 multi_body({{OpCode::remove, remove_body("/z", -1)},
                             {OpCode::create, create_body("/z", "m", CreateMode::ephemeral)},
                             {OpCode::set, set_body("/a", Bytes(200, 'm'), -1)},
                             {OpCode::remove, remove_body("/e", -1)}}));
     }},
    {"a multi that is undone", [](Rig& rig) {
         request(rig, beta, OpCode::multi,
                 multi_body({{OpCode::remove, remove_body("/z", -1)},
                             {OpCode::create, create_body("/z", "m", CreateMode::ephemeral)},
                             {OpCode::create, create_body("/y", "m", CreateMode::ephemeral)},
                             {OpCode::set, set_body("/a", Bytes(200, 'm'), -1)},
                             {OpCode::remove, remove_body("/a/e", -1)},
                             {OpCode::remove, remove_body("/a", -1)},
                             {OpCode::check, remove_body("/nothing", -1)}}));
     }},
    {"a request that was executed already", [](Rig& rig) {
         rig.apply(alpha, 1, OpCode::create, create_body("/gone", "", CreateMode::persistent));
     }},
};

// What becomes of a machine that nobody saves meanwhile.
struct Twin {
    std::uint64_t digest = 0;
    std::vector<Bytes> records;

    Twin(const Change& first, const Change& second) {
        Rig rig;
        fill_small(rig);
        first.make(rig), second.make(rig);
        digest = rig.machine.digest();
        records = rig.records();
    }
};

// Saves in slices of `bytes`; before the slices of the two numbers the changes are made. RETURNS
// how many slices there were.
std::size_t save_around(Rig& rig, std::size_t bytes, Bytes& out, std::size_t first_at,
                        const Change& first, std::size_t second_at, const Change& second) {
    std::size_t slices = 0;
    rig.machine.begin_save();
    for (bool done = false; !done; slices++) {
        if (slices == first_at) first.make(rig);
        if (slices == second_at) second.make(rig);
        done = rig.machine.save_slice(bytes, out);
        REQUIRE(rig.machine.is_saving() == !done);
    }
    // A change may have made the save shorter than the place of the next.
    if (first_at >= slices && first_at != SIZE_MAX) first.make(rig);
    if (second_at >= slices && second_at != SIZE_MAX) second.make(rig);
    return slices;
}

}  // namespace

TEST_CASE("faults S9 (P21 T5): save: every pair of changes between any two records") {
    Rig rig;
    fill_small(rig);
    const std::vector<Bytes> before = rig.records();
    const Zxid zxid = rig.machine.applied();
    const Change& none = changes[0];
    Bytes plain;
    const std::size_t slices = save_around(rig, 1, plain, 0, none, 0, none);
    CHECK(slices == 15);  // the head, three sessions, and an index each, of which one is free
    for (const Change& first : changes) {
        for (const Change& second : changes) {
            const Twin twin(first, second);
            for (std::size_t i = 0; i < slices; i++) {
                for (std::size_t j = i; j < slices; j++) {
                    Rig live;
                    Bytes out;
                    fill_small(live);
                    CAPTURE(first.what);
                    CAPTURE(second.what);
                    CAPTURE(i);
                    CAPTURE(j);
                    save_around(live, 1, out, i, first, j, second);
                    REQUIRE(support::sorted_records(out) == before);
                    REQUIRE(is_sound(out, zxid));
                    REQUIRE(live.machine.digest() == twin.digest);
                    if (i == j) REQUIRE(live.records() == twin.records);
                    if (i == j) live.machine.audit();
                }
            }
        }
    }
}

TEST_CASE("faults S9 (P21 T5): save: every change at every boundary of slices of every size") {
    Rig rig;
    fill_small(rig);
    const std::vector<Bytes> before = rig.records();
    const std::uint64_t digest = rig.machine.digest();
    const Zxid zxid = rig.machine.applied();
    std::size_t slices = SIZE_MAX;
    for (std::size_t bytes = 1; slices != 1; bytes += bytes < 32 ? 1 : 7) {
        Bytes plain;
        slices = save_around(rig, bytes, plain, 0, changes[0], 0, changes[0]);
        for (const Change& change : changes) {
            for (std::size_t i = 0; i < slices; i++) {
                Rig live, loaded({}, 9);
                Bytes out;
                fill_small(live);
                CAPTURE(bytes);
                CAPTURE(change.what);
                CAPTURE(i);
                save_around(live, bytes, out, i, change, SIZE_MAX, change);
                REQUIRE(loaded.machine.load(out) == Errc::ok);
                REQUIRE(loaded.machine.digest() == digest);
                REQUIRE(loaded.machine.applied() == zxid);
                REQUIRE(loaded.records() == before);
            }
        }
    }
}

TEST_CASE("P21 save: one after the other, each is the state of its beginning") {
    for (const Change& change : changes) {
        for (std::size_t i = 0; i < 13; i++) {
            Rig live;
            Bytes first, second;
            fill_small(live);
            const std::vector<Bytes> before = live.records();
            save_around(live, 1, first, i, change, SIZE_MAX, change);
            const std::vector<Bytes> between = live.records();
            save_around(live, 1, second, 12 - i, changes[2], i, changes[6]);
            CAPTURE(change.what);
            CAPTURE(i);
            REQUIRE(support::sorted_records(first) == before);
            REQUIRE(support::sorted_records(second) == between);
        }
    }
}

TEST_CASE("P21 save: given up or begun anew at every boundary, it is the state as it is then") {
    for (const Change& change : changes) {
        const Twin twin(change, changes[0]);
        for (std::size_t i = 0; i < 12; i++) {
            Rig live;
            Bytes given_up, out;
            fill_small(live);
            live.machine.begin_save();
            for (std::size_t slice = 0; slice < i; slice++) {
                REQUIRE_FALSE(live.machine.save_slice(1, given_up));
            }
            change.make(live);
            if (i % 2 == 0) {
                live.machine.stop_saving();
                CHECK_FALSE(live.machine.is_saving());
            }
            save_around(live, 1, out, i, change, i / 2, changes[6]);
            CAPTURE(change.what);
            CAPTURE(i);
            REQUIRE(support::sorted_records(out) == twin.records);
            live.machine.audit();
        }
    }
}

TEST_CASE("save: a load gives it up") {
    Rig rig;
    fill(rig);
    const Bytes bytes = rig.saved();
    const std::vector<Bytes> records = rig.records();
    Bytes out;
    rig.machine.begin_save();
    REQUIRE_FALSE(rig.machine.save_slice(1, out));
    REQUIRE(rig.machine.load(bytes) == Errc::ok);
    CHECK_FALSE(rig.machine.is_saving());
    CHECK_FALSE(rig.machine.tree().is_saving());
    CHECK(rig.records() == records);
    rig.machine.begin_save();
    REQUIRE(rig.machine.load("junk") == Errc::corrupt);
    CHECK_FALSE(rig.machine.is_saving());
}

TEST_CASE("save: sessions that are opened meanwhile do not make it longer") {
    Rig rig;
    fill_small(rig);
    const std::vector<Bytes> before = rig.records();
    Bytes out;
    std::size_t slices = 0;
    rig.machine.begin_save();
    for (bool done = false; !done; slices++) {
        for (std::uint64_t i = 0; i < 20; i++) rig.open(1000 + slices * 20 + i);
        done = rig.machine.save_slice(1, out);
        REQUIRE(slices < 15);
    }
    CHECK(slices == 15);
    CHECK(support::sorted_records(out) == before);
}

// One transaction for both, of a session that there is, mostly.
static void apply_random(coord::Rng& rng, Rig& live, Rig& twin) {
    std::vector<SessionId> ids{SessionId{7}};
    for (const auto& entry : live.machine.sessions()) ids.push_back(entry.first);
    const SessionId id = ids[rng.below(ids.size())];
    const coord::SessionRecord* const record = live.machine.find_session(id);
    const std::uint64_t newest = record ? record->cxid : 0;
    const std::uint64_t unsaid = rng.below((std::min)(newest, std::uint64_t{8}) + 1);
    std::uint64_t cxid = newest + (rng.chance(950) ? 1 : 0);
    Bytes path, body;
    for (std::uint64_t i = 0; i <= rng.below(3); i++) {
        path += "/", path += static_cast<char>('a' + rng.below(8));
    }
    OpCode op = OpCode::create;
    const std::uint64_t dice = rng.below(110);
    const Bytes bytes(rng.below(rng.chance(100) ? 2000 : 40), 'v');
    const BytesView value = rng.chance(100) ? coord::null_data : BytesView(bytes);
    if (dice >= 100) {
        op = OpCode::multi, body = random_multi(rng);
    } else if (dice < 6) {
        op = OpCode::open_session, body = open_body(rng.below(1000), 9);
    } else if (dice < 10) {
        op = OpCode::close_session, body = Bytes(1, '\1'), cxid = 0;
    } else if (dice < 40) {
        op = OpCode::remove, body = remove_body(path, -1);
    } else if (dice < 65) {
        op = OpCode::set, body = set_body(path, value, -1);
    } else {
        body = random_create(rng, path, value);
    }
    if (rng.chance(100)) {
        const auto node = live.machine.tree().find(path);
        body = reap_body(path, node ? node->stat.czxid : Zxid{});
        live.apply(SessionId{}, 0, OpCode::reap, body);
        twin.apply(SessionId{}, 0, OpCode::reap, body);
        return;
    }
    live.apply(id, cxid, op, body, newest - unsaid);
    twin.apply(id, cxid, op, body, newest - unsaid);
}

TEST_CASE("P21 save: thousands of random transactions, saves of random slices among them") {
    for (std::uint64_t seed = 1; seed <= 3; seed++) {
        coord::Rng rng(support::seed_or(seed * 77));
        CAPTURE(seed);
        Limits limits;
        limits.nodes_max = 300, limits.ephemerals_per_session_max = 30, limits.sessions_max = 12;
        Rig live(limits), twin(limits, 5), loaded(limits, 6);
        live.audits = twin.audits = false;
        std::vector<Bytes> before;
        std::uint64_t digest = 0, saved = 0, given_up = 0;
        Zxid zxid;
        Bytes out;
        for (int step = 0; step < 20000; step++) {
            apply_random(rng, live, twin);
            REQUIRE(live.machine.digest() == twin.machine.digest());
            if (!live.machine.is_saving() || rng.chance(3)) {
                given_up += live.machine.is_saving() ? 1u : 0u;
                out.clear();
                live.machine.begin_save();
                before = twin.records(), digest = twin.machine.digest();
                zxid = twin.machine.applied();
                continue;
            }
            if (!rng.chance(600)) continue;
            const std::size_t bytes = 1 + rng.below(rng.chance(100) ? 3000 : 200);
            if (!live.machine.save_slice(bytes, out)) continue;
            saved += 1;
            REQUIRE(support::sorted_records(out) == before);
            REQUIRE(is_sound(out, zxid, limits));
            REQUIRE(loaded.machine.load(out) == Errc::ok);
            REQUIRE(loaded.machine.digest() == digest);
            live.machine.audit(), loaded.machine.audit();
        }
        CHECK(saved > 20);
        CHECK(given_up > 3);
        live.machine.stop_saving();
        CHECK(live.records() == twin.records());
    }
}

TEST_CASE("judge_request: what a replica would number, and everything that it would not") {
    Limits limits;
    limits.path_bytes_max = 30;
    limits.data_bytes_max = 10;
    const auto judge = [&](OpCode op, BytesView body) { return judge_request(op, body, limits); };

    SUBCASE("open_session is 28 bytes, attach_session 8") {
        CHECK(judge(OpCode::open_session, open_body(1, 2)) == Errc::ok);
        CHECK(judge(OpCode::open_session, "") == Errc::marshalling_error);
        CHECK(judge(OpCode::open_session, Bytes(27, 'x')) == Errc::marshalling_error);
        CHECK(judge(OpCode::open_session, Bytes(29, 'x')) == Errc::marshalling_error);
        CHECK(judge(OpCode::attach_session, Bytes(8, 'x')) == Errc::ok);
        CHECK(judge(OpCode::attach_session, Bytes(7, 'x')) == Errc::marshalling_error);
        CHECK(judge(OpCode::attach_session, Bytes(9, 'x')) == Errc::marshalling_error);
    }
    SUBCASE("close_session is one byte") {
        CHECK(judge(OpCode::close_session, BytesView("\0", 1)) == Errc::ok);
        CHECK(judge(OpCode::close_session, "") == Errc::marshalling_error);
        CHECK(judge(OpCode::close_session, "xx") == Errc::marshalling_error);
    }
    SUBCASE("create") {
        const Bytes good = create_body("/abc", "data", CreateMode::ephemeral);
        CHECK(judge(OpCode::create, good) == Errc::ok);
        for (std::size_t size = 0; size < good.size(); size++) {
            CHECK(judge(OpCode::create, BytesView(good).substr(0, size)) ==
                  Errc::marshalling_error);
        }
        CHECK(judge(OpCode::create, good + "x") == Errc::marshalling_error);
        for (const int mode : {-1, 7, 8, INT32_MAX, INT32_MIN}) {
            CHECK(judge(OpCode::create, create_body("/a", "", static_cast<CreateMode>(mode))) ==
                  Errc::bad_arguments);
        }
        CHECK(judge(OpCode::create, create_body("/a", coord::null_data, {})) == Errc::ok);
        CHECK(judge(OpCode::set, set_body("/a", coord::null_data, 0)) == Errc::ok);
        CHECK(support::hex(create_body("/a", coord::null_data, {})) ==
              "00000002" "2f61" "ffffffff" "00000000");
        CHECK(support::hex(set_body("/a", coord::null_data, 7)) ==
              "00000002" "2f61" "ffffffff" "00000007");
        for (int mode = 0; mode < 7; mode++) {
            CAPTURE(mode);
            const bool wants = mode >= 5;
            const auto with = [&](std::int64_t ttl_ms) {
                return judge(OpCode::create,
                             create_body("/a", "", static_cast<CreateMode>(mode), ttl_ms));
            };
            const Errc good_ttl = wants ? Errc::ok : Errc::bad_arguments;
            CHECK(with(0) == (wants ? Errc::bad_arguments : Errc::ok));
            CHECK(with(1) == good_ttl);
            CHECK(with(coord::ttl_ms_max) == good_ttl);
            for (const std::int64_t ttl_ms :
                 {std::int64_t{-1}, coord::ttl_ms_max + 1, INT64_MAX, INT64_MIN}) {
                CHECK(with(ttl_ms) == Errc::bad_arguments);
            }
            const Bytes short_of = create_body("/a", "", static_cast<CreateMode>(mode));
            CHECK(judge(OpCode::create, short_of + Bytes(8, '\0')) == Errc::bad_arguments);
            CHECK(judge(OpCode::create, short_of + Bytes(7, '\0')) == Errc::marshalling_error);
            CHECK(judge(OpCode::create, short_of + Bytes(9, '\0')) == Errc::marshalling_error);
        }
        const CreateMode plain = CreateMode::persistent;
        const CreateMode sequential = CreateMode::ephemeral_sequential;
        const CreateMode numbered = CreateMode::persistent_sequential_with_ttl;
        CHECK(judge(OpCode::create, create_body(Bytes(11, '/'), "", numbered, 1)) == Errc::ok);
        CHECK(judge(OpCode::create, create_body(Bytes(12, '/'), "", numbered, 1)) ==
              Errc::too_large);
        CHECK(judge(OpCode::create, create_body(Bytes(30, '/'), "", plain)) == Errc::ok);
        CHECK(judge(OpCode::create, create_body(Bytes(31, '/'), "", plain)) == Errc::too_large);
        CHECK(judge(OpCode::create, create_body(Bytes(11, '/'), "", sequential)) == Errc::ok);
        CHECK(judge(OpCode::create, create_body(Bytes(12, '/'), "", sequential)) ==
              Errc::too_large);
        CHECK(judge(OpCode::create, create_body("/a", Bytes(10, 'x'), plain)) == Errc::ok);
        CHECK(judge(OpCode::create, create_body("/a", Bytes(11, 'x'), plain)) == Errc::too_large);
    }
    SUBCASE("remove") {
        const Bytes good = remove_body("/abc", 3);
        CHECK(judge(OpCode::remove, good) == Errc::ok);
        for (std::size_t size = 0; size < good.size(); size++) {
            CHECK(judge(OpCode::remove, BytesView(good).substr(0, size)) ==
                  Errc::marshalling_error);
        }
        CHECK(judge(OpCode::remove, good + "x") == Errc::marshalling_error);
        CHECK(judge(OpCode::remove, remove_body(Bytes(30, 'p'), 0)) == Errc::ok);
        CHECK(judge(OpCode::remove, remove_body(Bytes(31, 'p'), 0)) == Errc::too_large);
    }
    SUBCASE("set") {
        const Bytes good = set_body("/abc", "data", 3);
        CHECK(judge(OpCode::set, good) == Errc::ok);
        for (std::size_t size = 0; size < good.size(); size++) {
            CHECK(judge(OpCode::set, BytesView(good).substr(0, size)) == Errc::marshalling_error);
        }
        CHECK(judge(OpCode::set, good + "x") == Errc::marshalling_error);
        CHECK(judge(OpCode::set, set_body(Bytes(31, 'p'), "", 0)) == Errc::too_large);
        CHECK(judge(OpCode::set, set_body("/a", Bytes(11, 'x'), 0)) == Errc::too_large);
        CHECK(judge(OpCode::set, set_body("/a", Bytes(10, 'x'), 0)) == Errc::ok);
    }
    SUBCASE("a length that promises more than there is") {
        Bytes body;
        Writer(body).u32(UINT32_MAX);
        for (const OpCode op : {OpCode::create, OpCode::remove, OpCode::set}) {
            CHECK(judge(op, body) == Errc::marshalling_error);
            CHECK(judge(op, body + Bytes(100, '\xff')) == Errc::marshalling_error);
        }
    }
    SUBCASE("operations that there are not") {
        for (int op = 0; op < 256; op++) {
            if ((op >= 1 && op <= 5) || op == 7 || op == 10 || (op >= 12 && op <= 14)) continue;
            CHECK(judge(static_cast<OpCode>(op), "anything") == Errc::unimplemented);
        }
        CHECK(judge(OpCode::reap, reap_body("/a", Zxid{1})) == Errc::unimplemented);  // M7
        CHECK(judge(OpCode::silence, Bytes(12, 'x')) == Errc::unimplemented);  // M9
    }
}

TEST_CASE("random transactions: sound after each, and equal to a copy loaded half way") {
    for (std::uint64_t seed = 1; seed <= 5; seed++) {
        CAPTURE(seed);
        coord::Rng rng(seed);
        Limits limits;
        limits.nodes_max = 40, limits.ephemerals_per_session_max = 5, limits.sessions_max = 4;
        Rig rig(limits), copy(limits, seed);
        for (int step = 0; step < 600; step++) {
            const SessionId id{Zxid(1, 1 + rng.below(20)).value};
            const coord::SessionRecord* const record = rig.machine.find_session(id);
            const std::uint64_t cxid = (record ? record->cxid : 0) + rng.below(3);
            Bytes path;
            for (std::uint64_t i = 0; i <= rng.below(3); i++) {
                path += "/", path += static_cast<char>('a' + rng.below(3));
            }
            Bytes body;
            OpCode op = OpCode::set;
            switch (rng.below(6)) {
                case 0: op = OpCode::open_session, body = open_body(rng.below(6), 9); break;
                case 1: op = OpCode::remove, body = remove_body(path, -1); break;
                case 2: body = set_body(path, "v", -1); break;
                case 3:
                    if (!rng.chance(200)) continue;
                    op = OpCode::close_session, body = Bytes(1, '\0');
                    break;
                default:
                    op = OpCode::create;
                    body = random_create(rng, path, "d");
            }
            if (rng.chance(100)) {
                const auto node = rig.machine.tree().find(path);
                op = OpCode::reap, body = reap_body(path, node ? node->stat.czxid : Zxid{});
            }
            const std::uint64_t confirmed = rng.below(cxid + 2);
            const Outcome* const one = rig.apply(id, cxid, op, body, confirmed);
            if (step == 300) {
                REQUIRE(copy.machine.load(rig.saved()) == Errc::ok);
                copy.counter = rig.counter;
            } else if (step > 300) {
                const Outcome* const two = copy.apply(id, cxid, op, body, confirmed);
                CHECK((one == nullptr) == (two == nullptr));
                if (one != nullptr && two != nullptr) {
                    CHECK(one->error == two->error);
                    CHECK(one->path == two->path);
                }
                REQUIRE(copy.machine.digest() == rig.machine.digest());
                if (step % 50 == 0) REQUIRE(copy.records() == rig.records());
            } else if (step < 300) {
                copy.counter = rig.counter;
            }
        }
    }
}

}  // TEST_SUITE
