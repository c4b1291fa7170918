// Chapter 13: the client's face. Standalone replicas in virtual time first; then three voters in a
// simulation, for what needs others: suspension, expiry, leaders that die.

#include <doctest/doctest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "session_rig.hpp"
#include "support.hpp"

#if defined(__GLIBC__) && defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 33)
#include <malloc.h>
#define HAS_MALLINFO2
#endif
#endif

namespace {

// Bytes in use; 0 where nobody can tell.
std::size_t heap_bytes() {
#ifdef HAS_MALLINFO2
    const auto info = mallinfo2();
    return info.uordblks + info.hblkhd;
#else
    return 0;
#endif
}

using coord::Bytes;
using coord::BytesView;
using coord::CreateMode;
using coord::Errc;
using coord::milliseconds;
using coord::seconds;
using coord::Session;
using coord::SessionState;
using coord::Sync;
using coord::Time;
using session_rig::Alone;
using session_rig::Ensemble;

// Writes down what a test hears, in order: "created /a", "ok", "no_node" and the like.
struct Diary {
    std::vector<std::string> lines;

    void add(const std::string& line) { lines.push_back(line); }
    template <class T>
    std::function<void(coord::Result<T>)> answer(const std::string& what = "") {
        return [this, what](const coord::Result<T>& result) {
            lines.push_back(what + (what.empty() ? "" : " ") + coord::name(result.error()));
        };
    }
    coord::Watcher event(const std::string& what = "") {
        return [this, what](const coord::WatchEvent& event) {
            lines.push_back(what + (what.empty() ? "" : " ") + text(event.type) + " " + event.path);
        };
    }
    coord::OnState state(const std::string& what = "") {
        return [this, what](SessionState state) {
            std::string name = coord::name(state);
            for (char& c : name) c = static_cast<char>(c | 0x20);  // CLOSED as closed
            lines.push_back(what + (what.empty() ? "" : " ") + name);
        };
    }
    static std::string text(coord::EventType type) {
        switch (type) {
            case coord::EventType::created: return "created";
            case coord::EventType::deleted: return "deleted";
            case coord::EventType::data_changed: return "data_changed";
            case coord::EventType::children_changed: return "children_changed";
            case coord::EventType::data_watch_removed: return "data_watch_removed";
            case coord::EventType::child_watch_removed: return "child_watch_removed";
            case coord::EventType::persistent_watch_removed: return "persistent_watch_removed";
            case coord::EventType::none: break;
        }
        return "none";
    }
    std::string take() {
        std::string all;
        for (const std::string& line : lines) all += (all.empty() ? "" : ", ") + line;
        lines.clear();
        return all;
    }
    std::size_t count(const std::string& line) const {
        std::size_t found = 0;
        for (const std::string& each : lines) found += each == line ? 1u : 0u;
        return found;
    }
};

std::string joined(const std::vector<Bytes>& names) {
    std::string all;
    for (const Bytes& name : names) all += (all.empty() ? "" : " ") + name;
    return all;
}

std::string repeated(std::size_t size) { return std::string(size, 'x'); }

}  // namespace

TEST_SUITE("13 session") {

// -------------------------------------------------------------------------------------------------
// The handle

TEST_CASE("a handle is copied, and all copies are alike") {
    static_assert(std::is_copy_constructible<Session>::value, "a handle");
    static_assert(std::is_copy_assignable<Session>::value, "a handle");
    static_assert(sizeof(Session) <= 4 * sizeof(void*), "small");
    Alone alone;
    Sync zk = alone.open();
    const Session one = zk.session();
    const Session other = one;
    CHECK(one.id() == other.id());
    CHECK(&one.replica() == &alone.replica);
    CHECK(one.next_number() == 1);
    CHECK(other.next_number() == 2);
    CHECK(one.next_number() == 3);
}

TEST_CASE("open gives a session that is connected, with the timeout that it asked for") {
    Alone alone;
    Diary diary;
    Session::open(alone.replica, {seconds(7)}, [&](coord::Result<Session> opened) {
        REQUIRE(opened);
        CHECK(opened->id().value != 0);
        CHECK(opened->state() == SessionState::connected);
        CHECK(opened->timeout() == seconds(7));
        CHECK(opened->now() == alone.now);
        diary.add("opened");
    });
    CHECK(diary.take() == "");  // never inside the call
    alone.polls();
    CHECK(diary.take() == "opened");
    CHECK(alone.replica.status().sessions == 1);
}

TEST_CASE("open brings the timeout into the replica's range") {
    coord::ReplicaOptions options;
    options.session_timeout_min = seconds(2);
    options.session_timeout_max = seconds(20);
    Alone alone{options};
    CHECK(alone.open(milliseconds(1)).session().timeout() == seconds(2));
    CHECK(alone.open(seconds(3)).session().timeout() == seconds(3));
    CHECK(alone.open(seconds(300)).session().timeout() == seconds(20));
}

TEST_CASE("open needs no callback, and sessions differ") {
    Alone alone;
    Session::open(alone.replica, {}, {});
    alone.polls();
    CHECK(alone.replica.status().sessions == 1);
    const Sync one = alone.open();
    const Sync two = alone.open();
    CHECK(one.session().id() != two.session().id());
}

TEST_CASE("open over the bound on sessions is too_many, and the others live on") {
    coord::ReplicaOptions options;
    options.limits.sessions_max = 2;
    Alone alone{options};
    Sync one = alone.open();
    Sync two = alone.open();
    auto three = Sync::open(alone.replica, {}, alone.pump());
    REQUIRE_FALSE(three);
    CHECK(three.error() == Errc::too_many);
    CHECK(one.create("/a", ""));
    CHECK(two.close());  // a close is never refused
    CHECK(Sync::open(alone.replica, {}, alone.pump()));
}

TEST_CASE("the session of a standalone replica is certain as long as it is polled") {
    Alone alone;
    Sync zk = alone.open(seconds(5));
    for (int i = 0; i < 100; i++) {
        alone.poll(milliseconds(500));
        CHECK(zk.session().certain_until() > alone.now);
        CHECK(zk.session().state() == SessionState::connected);
    }
}

TEST_CASE("a handle to a session that was never opened gives session_expired") {
    Alone alone;
    alone.polls();
    Sync zk{Session{alone.replica, coord::SessionId{77}}, alone.pump()};
    CHECK(zk.create("/a", "").error() == Errc::session_expired);
    CHECK(zk.get("/").error() == Errc::session_expired);
    CHECK(zk.close().error() == Errc::session_expired);
    CHECK(zk.session().state() == SessionState::expired);
}

// -------------------------------------------------------------------------------------------------
// Operations and their errors

TEST_CASE("create answers with the path and the Stat") {
    Alone alone;
    Sync zk = alone.open();
    const auto made = zk.create("/a", "hello");
    REQUIRE(made);
    CHECK(made->path == "/a");
    CHECK(made->stat.czxid == alone.replica.status().applied);
    CHECK(made->stat.mzxid == made->stat.czxid);
    CHECK(made->stat.pzxid == made->stat.czxid);
    CHECK(made->stat.version == 0);
    CHECK(made->stat.cversion == 0);
    CHECK(made->stat.aversion == 0);
    CHECK(made->stat.ephemeral_owner == coord::SessionId{});
    CHECK(made->stat.data_length == 5);
    CHECK(made->stat.num_children == 0);
    const auto read = zk.get("/a");
    REQUIRE(read);
    CHECK(read->bytes == "hello");
    CHECK(read->stat.czxid == made->stat.czxid);
}

TEST_CASE("create in each mode") {
    Alone alone;
    Sync zk = alone.open();
    const coord::SessionId self = zk.session().id();
    REQUIRE(zk.create("/q", ""));
    const auto ephemeral = zk.create("/q/e", "", CreateMode::ephemeral);
    REQUIRE(ephemeral);
    CHECK(ephemeral->stat.ephemeral_owner == self);
    const auto first = zk.create("/q/s-", "1", CreateMode::persistent_sequential);
    REQUIRE(first);
    CHECK(first->path == "/q/s-0000000001");  // /q/e has used 0
    CHECK(first->stat.ephemeral_owner == coord::SessionId{});
    const auto second = zk.create("/q/s-", "2", CreateMode::ephemeral_sequential);
    REQUIRE(second);
    CHECK(second->path == "/q/s-0000000002");
    CHECK(second->stat.ephemeral_owner == self);
    const auto bare = zk.create("/q/", "", CreateMode::persistent_sequential);
    REQUIRE(bare);
    CHECK(bare->path == "/q/0000000003");
}

TEST_CASE("create: its errors, and a failed one uses no sequence number") {
    Alone alone;
    Sync zk = alone.open();
    REQUIRE(zk.create("/a", ""));
    REQUIRE(zk.create("/e", "", CreateMode::ephemeral));
    CHECK(zk.create("/a", "").error() == Errc::node_exists);
    CHECK(zk.create("/", "").error() == Errc::node_exists);
    CHECK(zk.create("/no/a", "").error() == Errc::no_node);
    CHECK(zk.create("/e/a", "").error() == Errc::no_children_for_ephemerals);
    CHECK(zk.create("/no/s-", "", CreateMode::persistent_sequential).error() == Errc::no_node);
    REQUIRE(zk.create("/a/b", ""));
    CHECK(zk.create("/a/b", "").error() == Errc::node_exists);
    const auto made = zk.create("/a/s-", "", CreateMode::persistent_sequential);
    REQUIRE(made);
    CHECK(made->path == "/a/s-0000000001");
}

TEST_CASE("paths that ZooKeeper refuses are bad_arguments to every write") {
    Alone alone;
    Sync zk = alone.open();
    REQUIRE(zk.create("/a", ""));
    const Bytes zero("/a\0b", 4);
    for (const Bytes& path : {Bytes(""), Bytes("a"), Bytes("/a/"), Bytes("//"), Bytes("/a//b"),
                              Bytes("/."), Bytes("/a/.."), Bytes("/a/./b"), zero,
                              Bytes("/\x01"), Bytes("/\x7f")}) {
        INFO(path);
        CHECK(zk.create(path, "").error() == Errc::bad_arguments);
        CHECK(zk.set(path, "").error() == Errc::bad_arguments);
        CHECK_FALSE(zk.remove(path));
        CHECK_FALSE(zk.exists(path));
        CHECK_FALSE(zk.get(path));
        CHECK_FALSE(zk.children(path));
    }
    for (const Bytes& path : {Bytes("/.x"), Bytes("/..x"), Bytes("/..."), Bytes("/\xc3\xa4")}) {
        INFO(path);
        CHECK(zk.create(path, ""));
    }
    CHECK(zk.session().state() == SessionState::connected);
}

TEST_CASE("a path or value over its limit is too_large, and the session lives on") {
    coord::ReplicaOptions options;
    options.limits.path_bytes_max = 100;
    options.limits.data_bytes_max = 1000;
    Alone alone{options};
    Sync zk = alone.open();
    CHECK(zk.create("/" + repeated(99), ""));
    CHECK(zk.create("/" + repeated(100), "").error() == Errc::too_large);
    CHECK(zk.create("/a", repeated(1000)));
    CHECK(zk.create("/b", repeated(1001)).error() == Errc::too_large);
    CHECK(zk.set("/a", repeated(1001)).error() == Errc::too_large);
    CHECK(zk.set("/a", repeated(1000)));
    const BytesView endless("x", SIZE_MAX / 2);  // nobody may look at it
    CHECK(zk.create("/b", endless).error() == Errc::too_large);
    CHECK(zk.set("/a", endless).error() == Errc::too_large);
    CHECK(zk.session().state() == SessionState::connected);
    CHECK_FALSE(zk.exists("/b"));
}

TEST_CASE("set replaces the data, and guards it by version") {
    Alone alone;
    Sync zk = alone.open();
    const auto made = zk.create("/a", "0");
    REQUIRE(made);
    const auto one = zk.set("/a", "first");
    REQUIRE(one);
    CHECK(one->version == 1);
    CHECK(one->czxid == made->stat.czxid);
    CHECK(one->mzxid > made->stat.mzxid);
    CHECK(one->data_length == 5);
    CHECK(zk.set("/a", "lost", 0).error() == Errc::bad_version);
    const auto two = zk.set("/a", "first", 1);  // an equal value counts as well
    REQUIRE(two);
    CHECK(two->version == 2);
    CHECK(zk.set("/no", "").error() == Errc::no_node);
    CHECK(zk.set("/no", "", 3).error() == Errc::no_node);
    CHECK(zk.get("/a")->bytes == "first");
}

TEST_CASE("remove: versions, children, the nodes that stay") {
    Alone alone;
    Sync zk = alone.open();
    REQUIRE(zk.create("/a", ""));
    REQUIRE(zk.create("/a/b", ""));
    REQUIRE(zk.set("/a/b", "1"));
    CHECK(zk.remove("/no").error() == Errc::no_node);
    CHECK(zk.remove("/a").error() == Errc::not_empty);
    CHECK(zk.remove("/a/b", 0).error() == Errc::bad_version);
    CHECK(zk.remove("/a", 5).error() == Errc::bad_version);  // before not_empty
    CHECK(zk.remove("/a/b", 1));
    CHECK(zk.remove("/a/b").error() == Errc::no_node);
    CHECK(zk.remove("/a"));
    CHECK(zk.remove("/").error() == Errc::bad_arguments);
    CHECK(zk.remove("/zookeeper").error() == Errc::bad_arguments);
    CHECK(zk.remove("/zookeeper/config").error() == Errc::bad_arguments);
    CHECK(zk.remove("/zookeeper/quota").error() == Errc::bad_arguments);
}

TEST_CASE("multi: all of it, with what became of each part") {
    Alone a;
    const Sync zk = a.open();
    const auto numbered = CreateMode::ephemeral_sequential;
    const coord::Multi made =
        zk.multi({coord::Op::create("/a", "1"), coord::Op::create("/a/b", "2"),
                  coord::Op::set("/a", "33", 0), coord::Op::create("/a/s-", "", numbered),
                  coord::Op::check("/a", 1), coord::Op::remove("/a/b", 0)});
    REQUIRE(made);
    REQUIRE(made.parts.size() == 6);
    CHECK(made.parts[0].path == "/a");
    CHECK(made.parts[2].stat.version == 1);
    CHECK(made.parts[3].path == "/a/s-0000000001");
    CHECK(made.parts[3].stat.ephemeral_owner == zk.session().id());
    CHECK(made.parts[4].stat.data_length == 2);
    const auto node = zk.get("/a");
    REQUIRE(node);
    CHECK(node->bytes == "33");
    CHECK(node->stat.czxid == node->stat.mzxid);  // one step
    CHECK(node->stat.pzxid == node->stat.czxid);
    CHECK(node->stat.num_children == 1);
    CHECK(zk.multi({}));
}

TEST_CASE("multi: or none of it, and which part is to blame") {
    Alone a;
    const Sync zk = a.open();
    REQUIRE(zk.create("/a", "1"));
    const coord::Zxid before = zk.get("/a")->stat.mzxid;
    const coord::Multi none = zk.multi({coord::Op::set("/a", "2"), coord::Op::create("/b", ""),
                                        coord::Op::check("/a", 7), coord::Op::remove("/a")});
    CHECK_FALSE(none);
    CHECK(none.error == Errc::bad_version);
    REQUIRE(none.parts.size() == 4);
    CHECK(none.parts[0].error == Errc::ok);
    CHECK(none.parts[1].error == Errc::ok);
    CHECK(none.parts[1].path.empty());
    CHECK(none.parts[2].error == Errc::bad_version);
    CHECK(none.parts[3].error == Errc::runtime_inconsistency);
    CHECK(zk.get("/a")->bytes == "1");
    CHECK(zk.get("/a")->stat.mzxid == before);
    CHECK(zk.exists("/b").error() == Errc::no_node);
    const coord::Multi check = zk.multi({coord::Op::check("/none")});
    CHECK(check.error == Errc::no_node);
    CHECK(zk.multi({coord::Op::check("/a", 0)}));
}

TEST_CASE("containers and nodes with a ttl: made, refused, and gone by themselves in time") {
    coord::ReplicaOptions options;
    options.timing.reap_interval = milliseconds(200);
    Alone a(options);
    const Sync zk = a.open();
    Diary d;
    const auto ttl = CreateMode::persistent_with_ttl;
    const auto numbered = CreateMode::persistent_sequential_with_ttl;
    CHECK(zk.create("/t", "", ttl).error() == Errc::bad_arguments);
    CHECK(zk.create("/t", "", ttl, coord::microseconds(999)).error() == Errc::bad_arguments);
    CHECK(zk.create("/t", "", ttl, milliseconds(-1)).error() == Errc::bad_arguments);
    CHECK(zk.create("/t", "", ttl, milliseconds(coord::ttl_ms_max + 1)).error() ==
          Errc::bad_arguments);
    for (const CreateMode mode :
         {CreateMode::persistent, CreateMode::ephemeral, CreateMode::container}) {
        CHECK(zk.create("/t", "", mode, seconds(1)).error() == Errc::bad_arguments);
        CHECK(zk.create("/t", "", mode, coord::nanoseconds(1)).error() == Errc::bad_arguments);
    }
    CHECK(a.replica.leader_counters().proposals == 2);  // the founding and the session
    REQUIRE(zk.create("/long", "", ttl, milliseconds(coord::ttl_ms_max)));
    REQUIRE(zk.create("/t", "x", ttl, milliseconds(1500)));
    REQUIRE(zk.create("/c", "", CreateMode::container));
    CHECK(zk.create("/c/n-", "", numbered, seconds(1))->path == "/c/n-0000000000");
    const coord::Multi made = zk.multi({coord::Op::create("/m", "", ttl, seconds(3)),
                                        coord::Op::create("/m/c", "", CreateMode::container)});
    REQUIRE(made);
    CHECK(made.parts[0].stat.ephemeral_owner == coord::SessionId{});
    REQUIRE(zk.exists("/t", d.event("t")));
    REQUIRE(zk.children("/", {}, d.event("root")));
    REQUIRE(zk.children("/c", {}, d.event("c")));
    for (int i = 0; i < 90; i++) a.poll(milliseconds(10));
    CHECK(d.take() == "");
    for (int i = 0; i < 50; i++) a.poll(milliseconds(10));
    CHECK(d.take() == "c children_changed /c, root children_changed /");  // and then /c itself
    CHECK(zk.create("/c/late", "").error() == Errc::no_node);
    for (int i = 0; i < 50; i++) a.poll(milliseconds(10));
    CHECK(d.take() == "t deleted /t");
    CHECK(zk.children("/")->names == std::vector<Bytes>{"long", "m", "zookeeper"});
    REQUIRE(zk.remove("/m/c"));  // it was never used: only its owner removes it
    for (int i = 0; i < 200; i++) a.poll(milliseconds(10));
    CHECK(zk.children("/")->names == std::vector<Bytes>{"long", "zookeeper"});
    CHECK(a.replica.leader_counters().reaps >= 4);
}

TEST_CASE("null is kept apart from no bytes, over a restart too") {
    coord::MemoryStorage disk;
    Time now{1000000000};
    for (int life = 0; life < 2; life++) {
        coord::ReplicaOptions options;
        options.snapshot_every_entries = 5;
        coord::Replica replica(options, disk);
        const coord::Pump pump = [&] {
            now = now + milliseconds(1);
            return replica.poll(now), true;
        };
        auto opened = Sync::open(replica, {}, pump);
        REQUIRE(opened);
        const Sync zk{*opened, pump};
        if (life == 0) {
            REQUIRE(zk.create("/null", coord::null_data));
            REQUIRE(zk.create("/empty", ""));
            REQUIRE(zk.create("/default", {}));
            REQUIRE(zk.create("/set", "x"));
            REQUIRE(zk.set("/set", coord::null_data));
            REQUIRE(zk.multi({coord::Op::create("/part", coord::null_data),
                              coord::Op::create("/late", coord::null_data),
                              coord::Op::set("/late", Bytes())}));
            for (int i = 0; i < 20; i++) REQUIRE(zk.set("/set", coord::null_data));
        }
        for (const char* const path : {"/null", "/set", "/part"}) {
            CAPTURE(path);
            CHECK(zk.get(path)->is_null);
            CHECK(zk.get(path)->bytes.empty());
            CHECK(coord::is_null(replica.tree().find(path)->data));
        }
        for (const char* const path : {"/empty", "/default", "/late", "/"}) {
            CAPTURE(path);
            CHECK_FALSE(zk.get(path)->is_null);
            CHECK_FALSE(coord::is_null(replica.tree().find(path)->data));
        }
        CHECK(zk.get("/none").error() == Errc::no_node);
    }
}

TEST_CASE("what goes by itself does so whoever leads, and everywhere alike") {
    coord::SimulationOptions options = Ensemble::options(5);
    options.replica.timing.reap_interval = milliseconds(300);
    coord::Simulation sim(options);
    REQUIRE(sim.run_until([&] { return sim.leader() != coord::PeerId{}; }, seconds(30)));
    const coord::PeerId first = sim.leader();
    const std::uint32_t other = first == coord::PeerId{1} ? 2 : 1;
    auto opened = Sync::open(sim.replica(other), {seconds(30)}, sim.pump());
    REQUIRE(opened);
    const Sync zk{*opened, sim.pump()};
    REQUIRE(zk.create("/t", "", CreateMode::persistent_with_ttl, seconds(3)));
    REQUIRE(zk.create("/c", "", CreateMode::container));
    REQUIRE(zk.create("/c/x", ""));
    sim.crash(first);
    REQUIRE(zk.remove("/c/x"));
    sim.run_for(seconds(2));
    CHECK_FALSE(sim.replica(other).tree().contains("/c"));
    CHECK(sim.replica(other).tree().contains("/t"));
    sim.restart(first);
    sim.run_for(seconds(4));
    for (std::uint32_t id = 1; id <= sim.size(); id++) {
        CAPTURE(id);
        CHECK(sim.replica(id).tree().size() == 4);
        CHECK(sim.replica(id).status().digest == sim.replica(1).status().digest);
    }
}

TEST_CASE("what goes by itself stays where nobody is ever to look for it") {
    coord::SimulationOptions options = Ensemble::options(5);
    options.replica.timing.reap_interval = coord::Duration{INT64_MAX};
    coord::Simulation sim(options);
    REQUIRE(sim.run_until([&] { return sim.leader() != coord::PeerId{}; }, seconds(30)));
    auto opened = Sync::open(sim.replica(1), {seconds(30)}, sim.pump());
    REQUIRE(opened);
    const Sync zk{*opened, sim.pump()};
    REQUIRE(zk.create("/t", "", CreateMode::persistent_with_ttl, milliseconds(1)));
    sim.run_for(seconds(5));
    CHECK(zk.exists("/t"));
    CHECK(sim.replica(sim.leader()).leader_counters().reaps == 0);
}

TEST_CASE("multi: what is refused before it is tried has no parts, and the session lives on") {
    coord::ReplicaOptions options;
    options.limits.multi_parts_max = 3, options.limits.path_bytes_max = 30;
    options.limits.data_bytes_max = 10;
    Alone a(options);
    const Sync zk = a.open();
    const auto refused = [&](std::vector<coord::Op> parts) {
        const coord::Multi result = zk.multi(std::move(parts));
        CHECK(result.parts.empty());
        return result.error;
    };
    CHECK(refused({4, coord::Op::check("/")}) == Errc::too_many);
    CHECK(refused({coord::Op::check("/a"), coord::Op::check("a")}) == Errc::bad_arguments);
    CHECK(refused({coord::Op::check("/a/")}) == Errc::bad_arguments);
    CHECK(refused({coord::Op::create("/a", Bytes(11, 'd'))}) == Errc::too_large);
    CHECK(refused({coord::Op::remove("/" + Bytes(30, 'p'))}) == Errc::too_large);
    const BytesView endless("x", SIZE_MAX / 2);  // nobody may look at it
    CHECK(refused({coord::Op::create("/a", endless)}) == Errc::too_large);
    CHECK(refused({coord::Op::set("/a", endless), coord::Op::set("/a", endless),
                   coord::Op::set("/a", endless)}) == Errc::too_large);
    const auto odd = static_cast<CreateMode>(9);
    CHECK(refused({coord::Op::create("/a", "", odd)}) == Errc::bad_arguments);
    coord::Op strange = coord::Op::check("/");
    strange.code = coord::OpCode::admit;
    CHECK(refused({strange}) == Errc::unimplemented);
    CHECK(zk.multi({coord::Op::create("/a/", "", CreateMode::persistent_sequential)}).error ==
          Errc::no_node);  // a path that only a sequential mode has
    REQUIRE(zk.close());
    CHECK(refused({coord::Op::check("/")}) == Errc::session_expired);
}

TEST_CASE("multi: its events come part by part, before its answer; one that fails fires nothing") {
    Alone a;
    const Sync zk = a.open();
    const Session& s = zk.session();
    Diary d;
    REQUIRE(zk.create("/a", ""));
    const auto watch = [&] {
        CHECK(zk.exists("/b", d.event("b")).error() == Errc::no_node);
        CHECK(zk.get("/a", d.event("a")));
        CHECK(zk.children("/a", {}, d.event("below a")));
    };
    watch();
    CHECK_FALSE(zk.multi({coord::Op::create("/b", ""), coord::Op::set("/a", "x"),
                          coord::Op::create("/a/c", ""), coord::Op::check("/none")}));
    CHECK(d.take() == "");
    s.multi({coord::Op::create("/a/c", ""), coord::Op::create("/b", ""), coord::Op::set("/a", "x"),
             coord::Op::remove("/b"), coord::Op::remove("/a/c")},
            [&](const coord::Multi& made) { d.add(made ? "done" : coord::name(made.error)); });
    a.polls();
    CHECK(d.take() == "below a children_changed /a, b created /b, a data_changed /a, done");
    CHECK(zk.exists("/b").error() == Errc::no_node);
}

TEST_CASE("multi: an empty callback, and one that outlives what it was given") {
    Alone a;
    const Sync zk = a.open();
    {
        const Bytes path = "/lent", data(100, 'd');
        zk.session().multi({coord::Op::create(path, data)}, {});
    }
    a.polls();
    CHECK(zk.get("/lent")->bytes == Bytes(100, 'd'));
}

// What grows is refused, wherever it stands in it; what frees space goes on.
TEST_CASE("faults D13: multi: on a full disk those go on that only remove") {
    Alone a;
    const Sync zk = a.open();
    REQUIRE(zk.create("/a", ""));
    a.disk.set_full(true);
    CHECK(zk.multi({coord::Op::remove("/a"), coord::Op::create("/b", "")}).error ==
          Errc::storage_full);
    CHECK(zk.multi({coord::Op::check("/a"), coord::Op::set("/a", "")}).error == Errc::storage_full);
    CHECK(zk.multi({coord::Op::check("/a"), coord::Op::remove("/a")}));
}

TEST_CASE("reads: data, Stat, zxid; and no_node") {
    Alone alone;
    Sync zk = alone.open();
    REQUIRE(zk.create("/a", "x"));
    REQUIRE(zk.create("/a/b", ""));
    const auto stat = zk.exists("/a");
    REQUIRE(stat);
    CHECK(stat->num_children == 1);
    CHECK(stat->cversion == 1);
    const auto data = zk.get("/a");
    REQUIRE(data);
    CHECK(data->bytes == "x");
    CHECK(data->zxid == alone.replica.status().applied);
    CHECK(zk.exists("/no").error() == Errc::no_node);
    CHECK(zk.get("/no").error() == Errc::no_node);
    CHECK(zk.children("/no").error() == Errc::no_node);
    const auto root = zk.children("/");
    REQUIRE(root);
    CHECK(joined(root->names) == "a zookeeper");
}

TEST_CASE("children: ordered, and page by page") {
    Alone alone;
    Sync zk = alone.open();
    REQUIRE(zk.create("/d", ""));
    for (const char* path : {"/d/e", "/d/b", "/d/a", "/d/c", "/d/d"}) REQUIRE(zk.create(path, ""));
    auto all = zk.children("/d");
    REQUIRE(all);
    CHECK(joined(all->names) == "a b c d e");
    CHECK_FALSE(all->more);
    CHECK(all->stat.num_children == 5);
    auto page = zk.children("/d", {"", 2});
    REQUIRE(page);
    CHECK(joined(page->names) == "a b");
    CHECK(page->more);
    page = zk.children("/d", {"b", 2});
    REQUIRE(page);
    CHECK(joined(page->names) == "c d");
    CHECK(page->more);
    page = zk.children("/d", {"d", 2});
    REQUIRE(page);
    CHECK(joined(page->names) == "e");
    CHECK_FALSE(page->more);
    page = zk.children("/d", {"bb", 1});  // a name that is not there is a place as well
    REQUIRE(page);
    CHECK(joined(page->names) == "c");
    page = zk.children("/d", {"zz", 10});
    REQUIRE(page);
    CHECK(page->names.empty());
    CHECK_FALSE(page->more);
}

TEST_CASE("children: no answer is longer than list_max") {
    coord::ReplicaOptions options;
    options.limits.list_max = 3;
    Alone alone{options};
    Sync zk = alone.open();
    REQUIRE(zk.create("/d", ""));
    for (int i = 0; i < 8; i++) {
        REQUIRE(zk.create("/d/", "", CreateMode::persistent_sequential));
    }
    std::size_t seen = 0;
    coord::Page page;
    for (int i = 0; i < 10; i++) {
        const auto names = zk.children("/d", page);
        REQUIRE(names);
        CHECK(names->names.size() <= 3);
        seen += names->names.size();
        if (!names->more) break;
        page.after = names->names.back();
    }
    CHECK(seen == 8);
}

TEST_CASE("data may be any bytes, and none") {
    Alone alone;
    Sync zk = alone.open();
    Bytes bytes;
    for (int i = 0; i < 256; i++) bytes.push_back(static_cast<char>(i));
    REQUIRE(zk.create("/a", bytes));
    CHECK(zk.get("/a")->bytes == bytes);
    REQUIRE(zk.set("/a", ""));
    CHECK(zk.get("/a")->bytes.empty());
}

TEST_CASE("the short forms: persistent, any version") {
    Alone alone;
    Sync zk = alone.open();
    const Session session = zk.session();
    Diary diary;
    session.create("/a", "x", diary.answer<coord::Created>("create"));
    session.set("/a", "y", diary.answer<coord::Stat>("set"));
    session.set("/a", "z", 1, diary.answer<coord::Stat>("set"));
    session.exists("/a", diary.answer<coord::Stat>("exists"));
    session.get("/a", diary.answer<coord::Data>("get"));
    session.children("/a", diary.answer<coord::Children>("children"));
    session.children("/a", {"x", 1}, diary.answer<coord::Children>("page"));
    session.sync(diary.answer<void>("sync"));
    session.remove("/a", 7, diary.answer<void>("remove"));
    session.remove("/a", diary.answer<void>("remove"));
    alone.polls();
    CHECK(diary.take() == "create ok, set ok, set ok, exists ok, get ok, children ok, page ok, "
                          "sync ok, remove bad_version, remove ok");
}

TEST_CASE("what is passed is lent for the call only") {
    Alone alone;
    Sync zk = alone.open();
    Bytes path = "/abcdefghijklmnopqrstuvwxyz";
    Bytes data = repeated(100);
    coord::Page page{"aaaa", 1};
    zk.session().create(path, data, {});
    zk.session().set(path, data, {});
    zk.session().children("/", page, [](const coord::Result<coord::Children>& names) {
        REQUIRE(names);
        CHECK(names->names[0] == "abcdefghijklmnopqrstuvwxyz");
    });
    path.assign(path.size(), '#'), data.assign(data.size(), '#'), page.after = "zz";
    alone.polls();
    CHECK(zk.get("/abcdefghijklmnopqrstuvwxyz")->bytes == repeated(100));
}

TEST_CASE("every callback may be empty") {
    Alone alone;
    Sync zk = alone.open();
    const Session session = zk.session();
    session.create("/a", "", {});
    session.create("/b", "", CreateMode::ephemeral, {});
    session.set("/a", "x", {});
    session.set("/a", "y", 1, {});
    session.exists("/a", {});
    session.exists("/a", {}, {});
    session.get("/a", {});
    session.get("/a", {}, {});
    session.children("/a", coord::OnChildren{});
    session.children("/a", coord::Page{}, {}, {});
    session.sync({});
    session.on_state({});
    session.remove("/b", {});
    session.remove("/no", {});
    session.create("bad", "", {});
    alone.polls();
    CHECK(alone.replica.tree().find("/a")->data == "y");
    session.close();
    session.close();
    session.get("/a", {});
    alone.polls();
    CHECK(session.state() == SessionState::expired);
}

// -------------------------------------------------------------------------------------------------
// C1, C2: when callbacks come, and in which order

TEST_CASE("a callback comes once, inside poll, never inside the call") {
    Alone alone;
    Sync zk = alone.open();
    const Session session = zk.session();
    int calls = 0;
    const auto once = [&](const auto&) { calls += 1; };
    session.create("/a", "", once);
    session.get("/a", once);
    session.create("bad", "", once);
    session.get("/no", once);
    CHECK(calls == 0);
    alone.polls(50);
    CHECK(calls == 4);
}

TEST_CASE("answers come in the order of the calls, refusals included") {
    Alone alone;
    Sync zk = alone.open();
    const Session session = zk.session();
    Diary diary;
    session.get("/a", diary.answer<coord::Data>("1"));
    session.create("/a", "", diary.answer<coord::Created>("2"));
    session.create("bad", "", diary.answer<coord::Created>("3"));
    session.get("/a", diary.answer<coord::Data>("4"));
    session.create("/a", "", diary.answer<coord::Created>("5"));
    session.sync(diary.answer<void>("6"));
    session.remove("/a", diary.answer<void>("7"));
    session.exists("/a", diary.answer<coord::Stat>("8"));
    alone.polls();
    CHECK(diary.take() == "1 no_node, 2 ok, 3 bad_arguments, 4 ok, 5 node_exists, 6 ok, 7 ok, "
                          "8 no_node");
}

TEST_CASE("each read sees exactly the writes before it") {
    Alone alone;
    Sync zk = alone.open();
    const Session session = zk.session();
    REQUIRE(zk.create("/a", ""));
    std::vector<Bytes> seen;
    for (int i = 0; i < 20; i++) {
        session.set("/a", std::to_string(i), {});
        session.get("/a", [&](const coord::Result<coord::Data>& data) {
            REQUIRE(data);
            seen.push_back(data->bytes);
        });
    }
    alone.polls();
    REQUIRE(seen.size() == 20);
    for (int i = 0; i < 20; i++) CHECK(seen[static_cast<std::size_t>(i)] == std::to_string(i));
}

TEST_CASE("a callback may submit, and what it submits is answered too") {
    Alone alone;
    Sync zk = alone.open();
    const Session session = zk.session();
    Diary diary;
    session.create("/a", "", [&](const coord::Result<coord::Created>&) {
        diary.add("one");
        session.create("/a/b", "", [&](const coord::Result<coord::Created>&) {
            diary.add("two");
            session.get("/a/b", [&](const coord::Result<coord::Data>& data) {
                diary.add(data ? "three" : "missing");
            });
            diary.add("after two");
        });
    });
    alone.polls();
    CHECK(diary.take() == "one, two, after two, three");
}

TEST_CASE("a callback may poll: that does nothing") {
    Alone alone;
    Sync zk = alone.open();
    Diary diary;
    zk.session().create("/a", "", [&](const coord::Result<coord::Created>&) {
        diary.add("a");
        zk.session().create("/b", "", diary.answer<coord::Created>("b"));
        alone.replica.poll(alone.now + seconds(1));
        diary.add("end of a");
    });
    alone.polls();
    CHECK(diary.take() == "a, end of a, b ok");
}

TEST_CASE("a callback may open a session and use it") {
    Alone alone;
    Sync zk = alone.open();
    Diary diary;
    zk.session().get("/", [&](const coord::Result<coord::Data>&) {
        Session::open(alone.replica, {}, [&](coord::Result<Session> opened) {
            REQUIRE(opened);
            opened->create("/new", "", diary.answer<coord::Created>("new"));
        });
    });
    alone.polls();
    CHECK(diary.take() == "new ok");
}

TEST_CASE("callbacks are released once they have been called") {
    Alone alone;
    const auto token = std::make_shared<int>(1);
    Sync zk = alone.open();
    const Session session = zk.session();
    session.create("/a", "", [token](const coord::Result<coord::Created>&) {});
    session.get("/a", [token](const coord::WatchEvent&) {},
                [token](const coord::Result<coord::Data>&) {});
    session.create("bad", "", [token](const coord::Result<coord::Created>&) {});
    alone.polls();
    CHECK(token.use_count() == 2);  // the watcher
    REQUIRE(zk.set("/a", "x"));
    CHECK(token.use_count() == 1);
    session.get("/a", [token](const coord::WatchEvent&) {}, {});
    session.close();
    alone.polls();
    CHECK(token.use_count() == 1);
}

// Ends what it has begun when it goes, as a cache of nodes would.
struct Holder {
    Session session;
    int& answers;
    ~Holder() {
        const auto answer = [&count = answers](const auto&) { count += 1; };
        session.remove_watches("/a", coord::WatcherType::any, answer);
        session.get("/", [](const coord::WatchEvent&) {}, answer);
        session.set("/", "", answer);
        session.at(session.now(), [] {});
        session.on_state([](SessionState) {});
        Session::open(session.replica(), {}, answer);
        (void)session.state();
    }
};

TEST_CASE("what callbacks hold may call on as it is destroyed with the replica") {
    int answers = 0;
    {
        Alone alone;
        Sync zk = alone.open();
        const Session& session = zk.session();
        const auto holder = [&] {
            return std::shared_ptr<Holder>(new Holder{session, answers});
        };
        session.create("/a", "", {});
        alone.polls();
        for (int i = 0; i < 20; i++) {
            session.get("/a", [h = holder()](const coord::WatchEvent&) {}, {});
            session.at(alone.now + seconds(9), [h = holder()] {});
            session.on_state([h = holder()](SessionState) {});
        }
        alone.polls();
        for (int i = 0; i < 20; i++) {
            session.set("/a", "", [h = holder()](const coord::Result<coord::Stat>&) {});
            session.get("/a", [h = holder()](const coord::WatchEvent&) {},
                        [h = holder()](const coord::Result<coord::Data>&) {});
            Session::open(alone.replica, {},
                          [h = holder()](const coord::Result<Session>&) {});
        }
        const auto lock = std::make_shared<coord::Lock>(session, "/lock");
        lock->acquire([](const coord::Result<coord::Grant>&) {});
        session.set("/a", "", [lock](const coord::Result<coord::Stat>&) {});
    }
    CHECK(answers == 0);
}

TEST_CASE("what many callbacks at once needed is given back when they have been called") {
    Alone alone;
    const Sync zk = alone.open();
    const Session& session = zk.session();
    std::size_t bytes = 0, events = 0;
    REQUIRE(zk.create("/big", repeated(1000000)));
    for (int i = 0; i < 100; i++) {
        REQUIRE(zk.add_watch("/", coord::AddWatchMode::persistent_recursive,
                             [&](const coord::WatchEvent&) { events += 1; }));
    }
    const std::size_t before = heap_bytes();
    for (int i = 0; i < 100; i++) {
        session.get("/big", [&](const coord::Result<coord::Data>& d) { bytes += d->bytes.size(); });
    }
    alone.polls();
    CHECK(bytes == 100 * 1000000);
    CHECK(heap_bytes() < before + 10000000);
    std::vector<Bytes> paths;
    for (int i = 0; i < 1000; i++) paths.push_back("/n" + std::to_string(i));
    for (int i = 0; i < 1000; i++) session.create(paths[static_cast<std::size_t>(i)], "", {});
    alone.polls();
    CHECK(events == 100 * 1000);
    CHECK(heap_bytes() < before + 10000000);
}

TEST_CASE("many events at once are told over several polls, which are due at once") {
    Alone alone;
    const Sync zk = alone.open();
    const Session& session = zk.session();
    std::uint64_t events = 0, answers = 0;
    constexpr std::uint64_t watchers = 300, writes = 1000;
    for (std::uint64_t i = 0; i < watchers; i++) {
        REQUIRE(zk.add_watch("/", coord::AddWatchMode::persistent_recursive,
                             [&](const coord::WatchEvent&) { events += 1; }));
    }
    for (std::uint64_t i = 0; i < writes; i++) {
        session.set("/", "", [&](const coord::Result<coord::Stat>& stat) {
            REQUIRE(stat);
            answers += 1;
            CHECK(events == answers * watchers);  // an answer comes after its events
        });
    }
    int polls = 0;
    while (answers < writes && polls < 100) {
        const std::uint64_t before = events + answers;
        alone.poll(milliseconds(0));
        polls += 1;
        CHECK(events + answers <= before + 65536 + watchers + 1);
        if (answers < writes) CHECK(alone.replica.next_deadline() <= alone.now);
    }
    CHECK(answers == writes);
    CHECK(polls >= 5);
    CHECK(alone.replica.status().applied == alone.replica.status().committed);
}

TEST_CASE("a replica that is destroyed calls nobody") {
    int calls = 0;
    {
        Alone alone;
        Sync zk = alone.open();
        zk.session().create("/a", "", [&](const coord::Result<coord::Created>&) { calls += 1; });
        zk.session().on_state([&](SessionState) { calls += 1; });
        Session::open(alone.replica, {}, [&](const coord::Result<Session>&) { calls += 1; });
    }
    CHECK(calls == 0);
}

// -------------------------------------------------------------------------------------------------
// Watches: ZooKeeper's table of what fires what, row by row, on the face of a session

TEST_CASE("what fires what") {
    // Watches at X and at its parent P; then the change, by another session.
    struct Row {
        const char* what;
        bool exists_before;
        const char* change;
        const char* events;
    };
    const Row rows[] = {
        {"create X", false, "create /p/x",
         "exists created /p/x, parent children_changed /p"},
        {"setData X", true, "set /p/x",
         "exists data_changed /p/x, get data_changed /p/x"},
        {"delete X", true, "remove /p/x",
         "exists deleted /p/x, get deleted /p/x, children deleted /p/x, "
         "parent children_changed /p"},
        {"create child of X", true, "create /p/x/y", "children children_changed /p/x"},
        {"delete child of X", true, "remove /p/x/z", "children children_changed /p/x"},
        {"setData child of X", true, "set /p/x/z", ""},
        {"setData P", true, "set /p", ""},
        {"create sibling", true, "create /p/w", "parent children_changed /p"},
    };
    for (const Row& row : rows) {
        INFO(row.what);
        Alone alone;
        Sync other = alone.open();
        Sync zk = alone.open();
        REQUIRE(other.create("/p", ""));
        const Bytes change = row.change;
        const Bytes path = change.substr(change.find(' ') + 1);
        if (row.exists_before) REQUIRE(other.create("/p/x", ""));
        if (path == "/p/x/z") REQUIRE(other.create("/p/x/z", ""));
        Diary diary;
        (void)zk.exists("/p/x", diary.event("exists"));
        (void)zk.get("/p/x", diary.event("get"));
        (void)zk.children("/p/x", {}, diary.event("children"));
        (void)zk.children("/p", {}, diary.event("parent"));
        CHECK(diary.take() == "");
        if (change[0] == 'c') REQUIRE(other.create(path, ""));
        if (change[0] == 's') REQUIRE(other.set(path, ""));
        if (change[0] == 'r') REQUIRE(other.remove(path));
        alone.polls();
        CHECK(diary.take() == row.events);
    }
}

TEST_CASE("the end of a session fires as deletes, all of one zxid") {
    Alone alone;
    Sync mortal = alone.open();
    Sync zk = alone.open();
    REQUIRE(zk.create("/p", ""));
    for (const char* path : {"/p/a", "/p/b", "/p/c"}) {
        REQUIRE(mortal.create(path, "", CreateMode::ephemeral));
    }
    Diary diary;
    std::vector<coord::Zxid> zxids;
    const auto zxid_of = [&](const coord::WatchEvent& event) { zxids.push_back(event.zxid); };
    for (const char* path : {"/p/a", "/p/b", "/p/c"}) {
        REQUIRE(zk.exists(path, diary.event()));
        REQUIRE(zk.get(path, zxid_of));
    }
    REQUIRE(zk.children("/p", {}, diary.event()));
    REQUIRE(mortal.close());
    alone.polls();
    CHECK(diary.count("deleted /p/a") == 1);
    CHECK(diary.count("deleted /p/b") == 1);
    CHECK(diary.count("deleted /p/c") == 1);
    CHECK(diary.count("children_changed /p") == 1);
    CHECK(diary.lines.size() == 4);
    REQUIRE(zxids.size() == 3);
    CHECK(zxids[0] == zxids[1]);
    CHECK(zxids[1] == zxids[2]);
}

TEST_CASE("a failed write fires nothing") {
    Alone alone;
    Sync zk = alone.open();
    REQUIRE(zk.create("/a", ""));
    REQUIRE(zk.create("/a/b", ""));
    Diary diary;
    REQUIRE(zk.get("/a", diary.event()));
    REQUIRE(zk.children("/a", {}, diary.event()));
    CHECK_FALSE(zk.set("/a", "", 9));
    CHECK_FALSE(zk.remove("/a"));
    CHECK_FALSE(zk.create("/a", ""));
    CHECK_FALSE(zk.create("/a/b", ""));
    alone.polls();
    CHECK(diary.take() == "");
}

TEST_CASE("a watcher is called once") {
    Alone alone;
    Sync zk = alone.open();
    REQUIRE(zk.create("/a", ""));
    Diary diary;
    REQUIRE(zk.get("/a", diary.event()));
    REQUIRE(zk.set("/a", "1"));
    REQUIRE(zk.set("/a", "2"));
    REQUIRE(zk.remove("/a"));
    alone.polls();
    CHECK(diary.take() == "data_changed /a");
    CHECK(alone.replica.status().watches == 0);
}

TEST_CASE("an equal value fires") {
    Alone alone;
    Sync zk = alone.open();
    REQUIRE(zk.create("/a", "same"));
    Diary diary;
    REQUIRE(zk.get("/a", diary.event()));
    REQUIRE(zk.set("/a", "same"));
    CHECK(diary.take() == "data_changed /a");
}

TEST_CASE("exists watches an absent node; get and children do not") {
    Alone alone;
    Sync zk = alone.open();
    Diary diary;
    CHECK(zk.exists("/a", diary.event("exists")).error() == Errc::no_node);
    CHECK(zk.get("/a", diary.event("get")).error() == Errc::no_node);
    CHECK(zk.children("/a", {}, diary.event("children")).error() == Errc::no_node);
    CHECK(alone.replica.status().watches == 1);
    REQUIRE(zk.create("/a", ""));
    REQUIRE(zk.create("/a/b", ""));
    alone.polls();
    CHECK(diary.take() == "exists created /a");
}

TEST_CASE("a watch on a path that is no path watches nothing") {
    Alone alone;
    Sync zk = alone.open();
    Diary diary;
    CHECK_FALSE(zk.exists(Bytes("/a\0", 3), diary.event()));
    CHECK(alone.replica.status().watches == 0);
}

TEST_CASE("several watchers of one node are each called, in the order in which they were set") {
    Alone alone;
    Sync one = alone.open();
    Sync two = alone.open();
    REQUIRE(one.create("/a", ""));
    Diary diary;
    REQUIRE(one.get("/a", diary.event("first")));
    REQUIRE(two.get("/a", diary.event("second")));
    REQUIRE(one.exists("/a", diary.event("third")));
    REQUIRE(two.set("/a", "x"));
    alone.polls();
    CHECK(diary.take() == "first data_changed /a, second data_changed /a, third data_changed /a");
}

TEST_CASE("add_watch: a watcher that stays, of a node or of all below it") {
    using coord::AddWatchMode;
    Alone a;
    const Sync zk = a.open();
    Diary d;
    REQUIRE(zk.add_watch("/a", AddWatchMode::persistent, d.event("p")));  // it is not there yet
    REQUIRE(zk.add_watch("/a", AddWatchMode::persistent_recursive, d.event("r")));
    REQUIRE(zk.create("/a", ""));
    CHECK(d.take() == "p created /a, r created /a");
    REQUIRE(zk.create("/a/b", ""));
    CHECK(d.take() == "r created /a/b, p children_changed /a");
    REQUIRE(zk.set("/a/b", "x"));
    REQUIRE(zk.set("/a", "x"));
    REQUIRE(zk.remove("/a/b"));
    REQUIRE(zk.remove("/a"));
    CHECK(d.take() == "r data_changed /a/b, p data_changed /a, r data_changed /a, "
                      "r deleted /a/b, p children_changed /a, p deleted /a, r deleted /a");
    REQUIRE(zk.create("/ab", ""));
    CHECK(d.take() == "");
    CHECK(zk.add_watch("/a", AddWatchMode::persistent, {}).error() == Errc::bad_arguments);
    CHECK(zk.add_watch("a", AddWatchMode::persistent, d.event()).error() == Errc::bad_arguments);
    for (const int mode : {-1, 2, 3, INT32_MAX, INT32_MIN}) {
        const auto odd = static_cast<AddWatchMode>(mode);
        CHECK(zk.add_watch("/a", odd, d.event()).error() == Errc::bad_arguments);
    }
}

TEST_CASE("remove_watches: each is told before the answer, in its turn; no_watcher without any") {
    using coord::AddWatchMode;
    using coord::WatcherType;
    Alone a;
    const Sync zk = a.open(), other = a.open();
    const Session& s = zk.session();
    Diary d;
    REQUIRE(zk.create("/a", ""));
    REQUIRE(zk.get("/a", d.event("d")));
    REQUIRE(zk.children("/a", {}, d.event("c")));
    REQUIRE(zk.add_watch("/a", AddWatchMode::persistent, d.event("p")));
    REQUIRE(zk.add_watch("/a", AddWatchMode::persistent_recursive, d.event("r")));
    REQUIRE(other.add_watch("/a", AddWatchMode::persistent, d.event("theirs")));
    CHECK(zk.remove_watches("/b").error() == Errc::no_watcher);
    for (const int type : {0, 6}) {
        const auto odd = static_cast<WatcherType>(type);
        CHECK(zk.remove_watches("/a", odd).error() == Errc::bad_arguments);
    }
    CHECK(d.take() == "");
    s.remove_watches("/a", WatcherType::persistent, d.answer<void>("removed"));
    s.set("/a", "x", d.answer<coord::Stat>("set"));
    s.remove_watches("/a", WatcherType::any, d.answer<void>("removed"));
    s.remove_watches("/a", WatcherType::any, d.answer<void>("removed"));
    a.polls();
    CHECK(d.take() == "p persistent_watch_removed /a, removed ok, d data_changed /a, "
                      "theirs data_changed /a, r data_changed /a, set ok, "
                      "c child_watch_removed /a, r persistent_watch_removed /a, removed ok, "
                      "removed no_watcher");
    REQUIRE(zk.remove("/a"));
    CHECK(d.take() == "theirs deleted /a");
    REQUIRE(other.close());
    REQUIRE(zk.create("/a", ""));
    CHECK(d.take() == "");
}

TEST_CASE("a watcher that stays may remove itself, and set others, and close its session") {
    Alone a;
    const Sync zk = a.open();
    const Session& s = zk.session();
    int heard = 0, removed = 0;
    REQUIRE(zk.add_watch("/a", coord::AddWatchMode::persistent, [&](const coord::WatchEvent& e) {
        if (e.type == coord::EventType::persistent_watch_removed) return void(removed += 1);
        heard += 1;
        s.remove_watches("/a", coord::WatcherType::persistent, {});
    }));
    REQUIRE(zk.create("/a", ""));
    a.polls();
    REQUIRE(zk.set("/a", "x"));
    a.polls();
    CHECK(heard == 1);
    CHECK(removed == 1);
    REQUIRE(zk.add_watch("/", coord::AddWatchMode::persistent_recursive,
                         [&](const coord::WatchEvent&) { heard += 1, s.close(); }));
    REQUIRE(zk.set("/a", "y"));
    a.polls();
    CHECK(heard == 2);
    CHECK(s.state() == SessionState::expired);
}

TEST_CASE("a watcher that stays keeps its own state from one event to the next") {
    Alone a;
    const Sync zk = a.open();
    std::vector<int> calls;
    REQUIRE(zk.add_watch("/a", coord::AddWatchMode::persistent,
                         [&calls, own = 0](const coord::WatchEvent&) mutable {
                             calls.push_back(++own);
                         }));
    REQUIRE(zk.create("/a", ""));
    REQUIRE(zk.set("/a", "x"));
    REQUIRE(zk.remove("/a"));
    CHECK(calls == std::vector<int>{1, 2, 3});
}

TEST_CASE("an event comes before the answer of the write that made it, and before new data") {
    Alone alone;
    Sync zk = alone.open();
    const Session session = zk.session();
    REQUIRE(zk.create("/a", "old"));
    Diary diary;
    session.get("/a", diary.event(), [&](const coord::Result<coord::Data>& data) {
        diary.add("read " + data->bytes);
    });
    session.set("/a", "new", diary.answer<coord::Stat>("set"));
    session.get("/a", [&](const coord::Result<coord::Data>& data) {
        diary.add("read " + data->bytes);
    });
    alone.polls();
    CHECK(diary.take() == "read old, data_changed /a, set ok, read new");
}

TEST_CASE("a watch is set where its read stands among the writes, not before") {
    Alone alone;
    Sync zk = alone.open();
    const Session session = zk.session();
    Diary diary;
    session.create("/a", "", {});
    session.get("/a", diary.event(), diary.answer<coord::Data>("get"));
    session.get("/b", diary.event(), diary.answer<coord::Data>("get"));
    session.create("/b", "", diary.answer<coord::Created>("create"));
    alone.polls();
    CHECK(diary.take() == "get ok, get no_node, create ok");
}

TEST_CASE("a watcher may set itself again, and misses no last state") {
    Alone alone;
    Sync zk = alone.open();
    Sync other = alone.open();
    REQUIRE(zk.create("/a", "0"));
    const Session session = zk.session();
    Bytes last;
    int events = 0;
    std::function<void()> watch = [&] {
        session.get("/a", [&](const coord::WatchEvent&) {
            events += 1;
            watch();
        }, [&](const coord::Result<coord::Data>& data) { last = data->bytes; });
    };
    watch();
    alone.polls(2);
    for (int i = 1; i <= 30; i++) {
        other.session().set("/a", std::to_string(i), {});
        if (i % 3 == 0) alone.poll();
    }
    alone.polls();
    CHECK(last == "30");
    CHECK(events >= 10);
    CHECK(events <= 30);
}

TEST_CASE("an event names the zxid of its change") {
    Alone alone;
    Sync zk = alone.open();
    REQUIRE(zk.create("/a", ""));
    coord::Zxid seen;
    REQUIRE(zk.get("/a", [&](const coord::WatchEvent& event) { seen = event.zxid; }));
    const auto stat = zk.set("/a", "x");
    REQUIRE(stat);
    CHECK(seen == stat->mzxid);
}

TEST_CASE("watchers end with their session, uncalled") {
    Alone alone;
    Sync zk = alone.open();
    Sync other = alone.open();
    REQUIRE(other.create("/a", ""));
    Diary diary;
    REQUIRE(zk.get("/a", diary.event()));
    (void)zk.exists("/b", diary.event());
    REQUIRE(zk.close());
    CHECK(alone.replica.status().watches == 0);
    REQUIRE(other.set("/a", "x"));
    REQUIRE(other.create("/b", ""));
    alone.polls();
    CHECK(diary.take() == "");
}

TEST_CASE("watches over their bound are too_many, and the session lives on") {
    coord::ReplicaOptions options;
    options.limits.watches_per_session_max = 3;
    Alone alone{options};
    Sync zk = alone.open();
    Diary diary;
    REQUIRE(zk.create("/a", ""));
    for (int i = 0; i < 3; i++) CHECK(zk.get("/a", diary.event()));
    CHECK(zk.get("/a", diary.event()).error() == Errc::too_many);
    CHECK(zk.exists("/no", diary.event()).error() == Errc::too_many);
    CHECK(zk.get("/a"));  // without a watcher
    REQUIRE(zk.set("/a", "x"));
    alone.polls();
    CHECK(diary.lines.size() == 3);
    CHECK(zk.get("/a", diary.event()));
}

TEST_CASE("the bound on watches holds for requests that wait for their turn, too") {
    coord::ReplicaOptions options;
    options.limits.watches_per_session_max = 3;
    Alone alone{options};
    const Sync zk = alone.open();
    const Session& s = zk.session();
    Diary d;
    const auto done = [&] { return d.answer<coord::Data>("get"); };
    s.create("/a", "", {});
    for (int i = 0; i < 5; i++) s.get("/a", [](const coord::WatchEvent&) {}, done());
    alone.polls();
    CHECK(alone.replica.status().watches == 3);
    CHECK(d.take() == "get ok, get ok, get ok, get too_many, get too_many");
    // And what makes room for a watcher may stand right before it.
    s.set("/a", "x", {});
    s.get("/a", d.event("new"), done());
    s.remove_watches("/a", coord::WatcherType::any, d.answer<void>("removed"));
    s.add_watch("/a", coord::AddWatchMode::persistent, d.event("p"), d.answer<void>("added"));
    alone.polls();
    CHECK(d.take() == "get ok, new data_watch_removed /a, removed ok, added ok");
    CHECK(alone.replica.status().watches == 1);
}

// -------------------------------------------------------------------------------------------------
// The end of a session

TEST_CASE("close: requests before it are executed, those after it are session_expired") {
    Alone alone;
    Sync zk = alone.open();
    const Session session = zk.session();
    Diary diary;
    session.create("/a", "", diary.answer<coord::Created>("create"));
    session.create("/e", "", CreateMode::ephemeral, diary.answer<coord::Created>("ephemeral"));
    session.close(diary.answer<void>("close"));
    session.create("/b", "", diary.answer<coord::Created>("late create"));
    session.get("/a", diary.answer<coord::Data>("late get"));
    session.close(diary.answer<void>("late close"));
    alone.polls();
    CHECK(diary.count("create ok") == 1);
    CHECK(diary.count("ephemeral ok") == 1);
    CHECK(diary.count("close ok") == 1);
    CHECK(diary.count("late create session_expired") == 1);
    CHECK(diary.count("late get session_expired") == 1);
    CHECK(diary.count("late close session_expired") == 1);
    CHECK(diary.lines.size() == 6);
    CHECK(alone.replica.tree().contains("/a"));
    CHECK_FALSE(alone.replica.tree().contains("/e"));
    CHECK_FALSE(alone.replica.tree().contains("/b"));
    CHECK(session.state() == SessionState::expired);  // over; only listeners hear how
    CHECK(session.certain_until() <= alone.now);
    CHECK(alone.replica.status().sessions == 0);
}

TEST_CASE("a session may close itself in a callback, and in a watcher") {
    Alone alone;
    Diary diary;
    SUBCASE("in a callback") {
        Sync zk = alone.open();
        const Session session = zk.session();
        session.create("/e", "", CreateMode::ephemeral, [&](const coord::Result<coord::Created>&) {
            diary.add("create");
            session.close(diary.answer<void>("close"));
            session.get("/", diary.answer<coord::Data>("late"));
        });
        session.get("/e", diary.answer<coord::Data>("get"));
        alone.polls();
        CHECK(diary.count("create") == 1);
        CHECK(diary.count("get ok") == 1);
        CHECK(diary.count("close ok") == 1);
        CHECK(diary.count("late session_expired") == 1);
        CHECK_FALSE(alone.replica.tree().contains("/e"));
    }
    SUBCASE("in a watcher") {
        Sync zk = alone.open();
        const Session session = zk.session();
        session.create("/a", "", {});
        session.get("/a", [&](const coord::WatchEvent&) {
            diary.add("event");
            session.close(diary.answer<void>("close"));
        }, {});
        session.set("/a", "", diary.answer<coord::Stat>("set"));
        alone.polls();
        CHECK(diary.take() == "event, set ok, close ok");
    }
    SUBCASE("in the callback of open") {
        Session::open(alone.replica, {}, [&](coord::Result<Session> opened) {
            REQUIRE(opened);
            opened->close(diary.answer<void>("close"));
        });
        alone.polls();
        CHECK(diary.take() == "close ok");
    }
    CHECK(alone.replica.status().sessions == 0);
}

TEST_CASE("listeners hear of the close, once, in their order; copies share them") {
    Alone alone;
    Sync zk = alone.open();
    const Session copy = zk.session();
    Diary diary;
    zk.session().on_state(diary.state("first"));
    copy.on_state(diary.state("second"));
    const auto owner = std::make_shared<int>(0);
    copy.on_state(std::weak_ptr<int>(owner), diary.state("owned"));
    {
        const auto brief = std::make_shared<int>(0);
        copy.on_state(std::weak_ptr<const void>(brief), diary.state("orphan"));
    }
    copy.on_state([&](SessionState) {
        copy.on_state(diary.state("too late"));
        diary.add("third");
    });
    auto late = std::make_shared<int>(0);
    copy.on_state(std::weak_ptr<int>(late), diary.state("late orphan"));
    late.reset();
    REQUIRE(zk.close());
    alone.polls();
    CHECK(diary.take() == "first closed, second closed, owned closed, third");
    copy.on_state(diary.state("never"));
    alone.polls();
    CHECK(diary.take() == "");
}

TEST_CASE("handles that were made apart have their own listeners, and all are told") {
    Alone alone;
    Sync zk = alone.open();
    const Session apart{alone.replica, zk.session().id()};
    Diary diary;
    zk.session().on_state(diary.state("one"));
    apart.on_state(diary.state("two"));
    REQUIRE(zk.close());
    alone.polls();
    CHECK(diary.take() == "one closed, two closed");
}

TEST_CASE("listeners of owners that are gone are forgotten") {
    Alone alone;
    Sync zk = alone.open();
    const auto token = std::make_shared<int>(0);
    for (int i = 0; i < 100; i++) {
        const auto brief = std::make_shared<int>(0);
        zk.session().on_state(std::weak_ptr<const void>(brief), [token](SessionState) {});
    }
    CHECK(token.use_count() <= 3);
}

TEST_CASE("what listeners hold may call on as they are forgotten") {
    Alone alone;
    Sync zk = alone.open();
    const Session& session = zk.session();
    int answers = 0, heard = 0;
    for (int i = 0; i < 20; i++) {
        const auto brief = std::make_shared<int>(0);
        const auto holder = std::shared_ptr<Holder>(new Holder{session, answers});
        session.on_state(std::weak_ptr<int>(brief), [holder](SessionState) {});
        session.on_state([&](SessionState) { heard += 1; });
    }
    alone.polls();
    CHECK(answers >= 19 * 4);
    REQUIRE(zk.close());
    alone.polls();
    CHECK(heard == 20);
}

// As the shortest way to use it in a listener is to have a copy of it there.
TEST_CASE("C7 a listener that holds its own session's handle goes when there is nothing to hear") {
    auto token = std::make_shared<int>(0);
    const std::weak_ptr<int> left = token;
    Diary diary;
    std::optional<Alone> alone(std::in_place);
    std::optional<Session> session = alone->open().session();
    const auto listen = [&] {
        session->on_state([token, own = *session, tell = diary.state()](SessionState state) {
            CHECK(own.state() != SessionState::connected);
            tell(state);
        });
    };
    const auto let_go = [&] { token.reset(), session.reset(); };
    SUBCASE("the session is closed") {
        listen(), listen();
        session->close();
        let_go();
        alone->polls();
        CHECK(diary.take() == "closed, closed");
        CHECK(left.expired());
    }
    SUBCASE("it goes on elsewhere") {
        listen();
        Session::attach(alone->replica, session->id(), session->password(), {});
        let_go();
        alone->polls();
        CHECK(diary.take() == "moved");
        CHECK(left.expired());
    }
    SUBCASE("it had ended before") {
        session->close();
        alone->polls();
        listen();
        let_go();
        CHECK(left.expired());
    }
    SUBCASE("it had ended, and others were told") {
        session->on_state(diary.state("one"));
        session->close();
        alone->polls();
        listen();
        let_go();
        CHECK(diary.take() == "one closed");
        CHECK(left.expired());
    }
    SUBCASE("it lives: it is there without anybody who holds a handle, until the replica goes") {
        listen();
        let_go();
        alone->polls();
        CHECK_FALSE(left.expired());
        alone.reset();
        CHECK(diary.take() == "");
        CHECK(left.expired());
    }
}

TEST_CASE("sessions do not disturb one another") {
    Alone alone;
    Sync one = alone.open();
    Sync two = alone.open();
    REQUIRE(one.create("/one", "", CreateMode::ephemeral));
    REQUIRE(two.create("/two", "", CreateMode::ephemeral));
    Diary diary;
    one.session().on_state(diary.state("one"));
    two.session().on_state(diary.state("two"));
    REQUIRE(one.close());
    alone.polls();
    CHECK(diary.take() == "one closed");
    CHECK_FALSE(alone.replica.tree().contains("/one"));
    CHECK(alone.replica.tree().contains("/two"));
    CHECK(two.set("/two", "x"));
}

TEST_CASE("somebody else may change an ephemeral node, which stays its owner's") {
    Alone alone;
    Sync one = alone.open();
    Sync two = alone.open();
    REQUIRE(one.create("/e", "", CreateMode::ephemeral));
    const auto set = two.set("/e", "two");
    REQUIRE(set);
    CHECK(set->ephemeral_owner == one.session().id());
    CHECK(two.create("/e", "", CreateMode::ephemeral).error() == Errc::node_exists);
    REQUIRE(two.remove("/e"));
    CHECK(one.close());  // nothing left to remove
}

TEST_CASE("requests over their bound are too_many, in their turn, and what recovers is not") {
    coord::ReplicaOptions options;
    options.limits.requests_per_session_max = 10;
    Alone alone{options};
    Sync zk = alone.open();
    REQUIRE(zk.create("/a", ""));
    const Session session = zk.session();
    Diary diary;
    for (int i = 0; i < 25; i++) session.set("/a", "", diary.answer<coord::Stat>());
    session.remove("/a", diary.answer<void>("remove"));
    session.close(diary.answer<void>("close"));
    alone.polls();
    CHECK(diary.count("ok") == 10);
    CHECK(diary.count("too_many") == 15);
    CHECK(diary.count("remove ok") == 1);
    CHECK(diary.count("close ok") == 1);
}

TEST_CASE("requests over their bound: afterwards there is room again") {
    coord::ReplicaOptions options;
    options.limits.requests_per_session_max = 10;
    Alone alone{options};
    Sync zk = alone.open();
    REQUIRE(zk.create("/a", ""));
    for (int round = 0; round < 5; round++) {
        Diary diary;
        for (int i = 0; i < 10; i++) zk.session().set("/a", "", diary.answer<coord::Stat>());
        alone.polls();
        CHECK(diary.count("ok") == 10);
    }
}

// R17, R3: in its turn, and nothing of it has been executed.
TEST_CASE("what would wait where too much waits already is throttled_op, in its turn") {
    coord::ReplicaOptions options;
    options.limits.requests_waiting_max = 4;
    Alone alone{options};
    Sync zk = alone.open(), other = alone.open();
    REQUIRE(zk.create("/a", "0"));
    const Session one = zk.session(), two = other.session();
    Diary diary;
    for (int i = 1; i <= 6; i++) {
        one.set("/a", std::to_string(i), diary.answer<coord::Stat>(std::to_string(i)));
    }
    two.set("/a", "7", diary.answer<coord::Stat>("two"));
    one.get("/a", diary.answer<coord::Data>("behind"));
    two.sync(diary.answer<void>("sync"));
    CHECK(diary.take() == "");  // never inside the call
    alone.polls();
    CHECK(diary.count("two throttled_op") == 1);
    CHECK(diary.count("sync throttled_op") == 1);
    std::vector<std::string> own;
    for (const std::string& line : diary.lines) {
        if (line[0] != 't' && line[0] != 's') own.push_back(line);
    }
    CHECK(own == std::vector<std::string>{"1 ok", "2 ok", "3 ok", "4 ok", "5 throttled_op",
                                          "6 throttled_op", "behind throttled_op"});
    CHECK(zk.get("/a")->bytes == "4");
    CHECK(zk.get("/a")->stat.version == 4);
    CHECK(alone.replica.counters().requests_throttled == 5);
    CHECK(alone.replica.counters().requests_refused == 5);
    CHECK(one.state() == SessionState::connected);
    CHECK(zk.set("/a", "8"));  // there is room again
    CHECK(other.set("/a", "9"));
    CHECK(zk.get("/a")->stat.version == 6);
}

TEST_CASE("throttled_op: never what frees, closes, opens or attaches, nor a read that can be now") {
    coord::ReplicaOptions options;
    options.limits.requests_waiting_max = 5;
    Alone alone{options};
    Sync zk = alone.open(), reader = alone.open();
    REQUIRE(zk.create("/a", ""));
    for (const char* const path : {"/b", "/c", "/d", "/lock"}) REQUIRE(zk.create(path, ""));
    const coord::Zxid lock = zk.exists("/lock")->czxid;
    const Session one = zk.session();
    Diary diary;
    for (int i = 0; i < 6; i++) one.set("/a", "x", diary.answer<coord::Stat>("set"));
    one.remove("/b", diary.answer<void>("remove"));
    one.guarded_by("/lock", lock).remove("/c", diary.answer<void>("guarded"));
    one.multi({coord::Op::remove_all("/d")}, [&](const coord::Multi& m) {
        diary.add(std::string("all ") + coord::name(m.error));
    });
    one.multi({coord::Op::remove("/lock"), coord::Op::set("/a", "y")}, [&](const coord::Multi& m) {
        diary.add(std::string("multi ") + coord::name(m.error));
    });
    reader.session().get("/a", diary.answer<coord::Data>("get"));
    reader.session().exists("/a", diary.event(), diary.answer<coord::Stat>("watch"));
    Session::open(alone.replica, {}, diary.answer<Session>("open"));
    Session::attach(alone.replica, reader.session().id(), reader.session().password(),
                    diary.answer<Session>("attach"));
    one.close(diary.answer<void>("close"));
    alone.polls(20);
    for (const std::string done : {"remove ok", "guarded ok", "all ok", "get ok", "watch ok",
                                   "open ok", "attach ok", "close ok", "multi throttled_op"}) {
        CAPTURE(done);
        CHECK(diary.count(done) == 1);
    }
    CHECK(diary.count("set ok") == 5);
    CHECK(diary.count("set throttled_op") == 1);
    CHECK(alone.replica.tree().contains("/lock"));
}

TEST_CASE("throttled_op: bytes that wait have a bound; and too_many where its turn has no room") {
    coord::ReplicaOptions options;
    options.limits.request_bytes_waiting_max = 10000;
    options.limits.requests_waiting_max = 100;
    Alone alone{options};
    Sync zk = alone.open();
    REQUIRE(zk.create("/a", ""));
    const Session session = zk.session();
    for (int round = 0; round < 3; round++) {
        Diary diary;
        for (int i = 0; i < 5; i++) session.set("/a", repeated(4000), diary.answer<coord::Stat>());
        std::uint64_t bytes = 0;
        alone.replica.visit_metrics([&](const coord::Metric& metric) {
            if (std::string(metric.name) == "coord_request_bytes_waiting") bytes = metric.value;
        });
        CHECK(bytes > 10000);
        CHECK(bytes < 10000 + 4100);  // and a request
        for (int i = 0; i < 200; i++) session.set("/a", "", diary.answer<coord::Stat>());
        alone.polls();
        CHECK(diary.count("ok") == 3);
        CHECK(diary.count("throttled_op") == 197);
        CHECK(diary.count("too_many") == 5);
        alone.replica.audit();
    }
}

TEST_CASE("a replica that has failed answers everything with replica_failed") {
    Alone alone;
    Sync zk = alone.open();
    REQUIRE(zk.create("/a", "x"));
    alone.disk.fail();
    const Session session = zk.session();
    Diary diary;
    session.create("/b", "", diary.answer<coord::Created>("in flight"));
    alone.polls();
    CHECK(alone.replica.status().role == coord::Role::failed);
    session.create("/c", "", diary.answer<coord::Created>("create"));
    session.get("/a", diary.answer<coord::Data>("get"));
    session.sync(diary.answer<void>("sync"));
    session.close(diary.answer<void>("close"));
    Session::open(alone.replica, {}, diary.answer<Session>("open"));
    alone.polls();
    CHECK(diary.count("in flight outcome_unknown") == 1);  // R13
    CHECK(diary.count("create replica_failed") == 1);
    CHECK(diary.count("get replica_failed") == 1);
    CHECK(diary.count("sync replica_failed") == 1);
    CHECK(diary.count("close replica_failed") == 1);
    CHECK(diary.count("open replica_failed") == 1);
    CHECK(diary.lines.size() == 6);
}

TEST_CASE("nothing is answered before it is durable") {
    Alone alone;
    Sync zk = alone.open();
    alone.disk.hold_flushes();
    Diary diary;
    zk.session().create("/a", "", diary.answer<coord::Created>("create"));
    zk.session().get("/a", diary.answer<coord::Data>("get"));
    alone.polls(100);
    CHECK(diary.take() == "");
    alone.disk.stop_holding();
    alone.polls();
    CHECK(diary.take() == "create ok, get ok");
}

TEST_CASE("at calls in the poll at or after its time, in order") {
    Alone alone;
    Sync zk = alone.open();
    const Session session = zk.session();
    Diary diary;
    session.at(alone.now + milliseconds(30), [&] { diary.add("30"); });
    session.at(alone.now + milliseconds(10), [&] { diary.add("10"); });
    session.at(alone.now + milliseconds(10), [&] { diary.add("10 again"); });
    session.at(Time{}, [&] { diary.add("past"); });
    CHECK(diary.take() == "");
    alone.poll(milliseconds(1));
    CHECK(diary.take() == "past");
    alone.poll(milliseconds(9));
    CHECK(diary.take() == "10, 10 again");
    CHECK(alone.replica.next_deadline() <= alone.now + milliseconds(20));
    alone.poll(milliseconds(50));
    CHECK(diary.take() == "30");
}

// -------------------------------------------------------------------------------------------------
// Sync

TEST_CASE("Sync gives up with the pump: operation_timeout, and the request goes on") {
    Alone alone;
    Sync zk = alone.open();
    int turns = 0;
    Sync impatient{zk.session(), [&] {
        turns += 1;
        return turns < 3;
    }};
    CHECK(impatient.create("/a", "").error() == Errc::operation_timeout);
    CHECK(turns == 3);
    CHECK(impatient.get("/a").error() == Errc::operation_timeout);
    alone.polls();  // the late answers find nobody, and harm nobody
    CHECK(zk.exists("/a"));
    CHECK(zk.create("/a", "").error() == Errc::node_exists);
}

TEST_CASE("Sync takes an answer that comes in the pump's last turn") {
    Alone alone;
    Sync zk = alone.open();
    Sync last{zk.session(), [&] {
        alone.polls(3);
        return false;
    }};
    CHECK(last.create("/a", ""));
    CHECK(last.exists("/a"));
}

TEST_CASE("Sync::open gives up too") {
    Alone alone;
    const auto opened = Sync::open(alone.replica, {}, [] { return false; });
    CHECK(opened.error() == Errc::operation_timeout);
    CHECK(Sync::open(alone.replica, {}, coord::Pump{}).error() == Errc::operation_timeout);
    alone.polls();
    CHECK(alone.replica.status().sessions == 2);  // the requests went on
}

TEST_CASE("Sync sets watchers, which are called while something is pumped") {
    Alone alone;
    Sync zk = alone.open();
    Diary diary;
    CHECK(zk.exists("/a", diary.event("exists")).error() == Errc::no_node);
    REQUIRE(zk.children("/", {}, diary.event("root")));
    REQUIRE(zk.create("/a", ""));
    CHECK(diary.take() == "exists created /a, root children_changed /");
    REQUIRE(zk.get("/a", diary.event("get")));
    REQUIRE(zk.remove("/a"));
    CHECK(diary.take() == "get deleted /a");
    CHECK(zk.sync());
}

TEST_CASE("Sync::wait waits for anything with a callback last") {
    Alone alone;
    Sync zk = alone.open();
    const auto made = zk.wait<coord::Created>([&](auto done) {
        zk.session().create("/a", "", done);
    });
    REQUIRE(made);
    CHECK(made->path == "/a");
    const coord::Pump no_pump = [] { return false; };
    const auto nothing = Sync::wait<int>(alone.replica, no_pump, [](auto) {});
    CHECK(nothing.error() == Errc::operation_timeout);
    const auto later = zk.wait<int>([&](auto done) {
        zk.session().at(alone.now + milliseconds(5), [done] { done(42); });
    });
    REQUIRE(later);
    CHECK(*later == 42);
}

TEST_CASE("Sync inside a callback is refused, and asks nothing") {
    Alone alone;
    Sync zk = alone.open();
    std::vector<Errc> errors;
    zk.session().get("/", [&](const coord::Result<coord::Data>&) {
        errors.push_back(zk.create("/a", "").error());
        errors.push_back(zk.close().error());
        errors.push_back(Sync::open(alone.replica, {}, alone.pump()).error());
    });
    alone.polls();
    CHECK(errors == std::vector<Errc>(3, Errc::api_error));
    CHECK_FALSE(alone.replica.tree().contains("/a"));
    CHECK(alone.replica.status().sessions == 1);
    CHECK(zk.create("/a", ""));
}

TEST_CASE("Sync: a thousand operations") {
    Alone alone;
    Sync zk = alone.open();
    REQUIRE(zk.create("/d", ""));
    for (int i = 0; i < 1000; i++) {
        const Bytes path = "/d/" + std::to_string(i);
        REQUIRE(zk.create(path, path));
        if (i % 3 == 0) REQUIRE(zk.remove(path));
    }
    CHECK(zk.children("/d")->names.size() == 666);
}

TEST_CASE("a standalone replica that restarts has its nodes, and not its sessions") {
    coord::MemoryStorage disk;
    coord::SessionId old;
    Time now{1};
    const auto pump_of = [&](coord::Replica& replica) {
        return coord::Pump([&] {
            now = now + milliseconds(1);
            replica.poll(now);
            return true;
        });
    };
    {
        coord::Replica replica{{}, disk};
        auto opened = Sync::open(replica, {seconds(2)}, pump_of(replica));
        REQUIRE(opened);
        old = opened->id();
        Sync zk{*opened, pump_of(replica)};
        REQUIRE(zk.create("/a", "kept"));
        REQUIRE(zk.create("/e", "", CreateMode::ephemeral));
    }
    coord::Replica replica{{}, disk};
    auto opened = Sync::open(replica, {}, pump_of(replica));
    REQUIRE(opened);
    Sync zk{*opened, pump_of(replica)};
    CHECK(zk.session().id() != old);
    CHECK(zk.get("/a")->bytes == "kept");
    CHECK(zk.exists("/e"));  // its session is not over yet
    for (int i = 0; i < 100; i++) {
        now = now + milliseconds(100);
        replica.poll(now);
    }
    CHECK_FALSE(zk.exists("/e"));
    CHECK(zk.session().state() == SessionState::connected);
}

// -------------------------------------------------------------------------------------------------
// Three voters

TEST_CASE("three voters: a session at any of them writes; all see it after sync") {
    Ensemble ensemble;
    Sync zk[] = {ensemble.open(1), ensemble.open(2), ensemble.open(3)};
    CHECK(zk[0].session().id() != zk[1].session().id());
    for (std::size_t i = 0; i < 3; i++) {
        const Bytes path = "/from" + std::to_string(i);
        REQUIRE(zk[i].create(path, "x"));
        for (Sync& other : zk) {
            REQUIRE(other.sync());
            CHECK(other.exists(path));
        }
    }
    REQUIRE(zk[0].create("/s-", "", CreateMode::ephemeral_sequential));
    CHECK(zk[2].create("/s-", "", CreateMode::ephemeral_sequential)->path == "/s-0000000004");
    REQUIRE(zk[0].close());
    REQUIRE(zk[2].sync());
    CHECK_FALSE(zk[2].exists("/s-0000000003"));
}

TEST_CASE("three voters: a watch at one hears of a write at another") {
    Ensemble ensemble;
    Sync writer = ensemble.open(ensemble.leader());
    Sync reader = ensemble.open(ensemble.follower());
    Diary diary;
    CHECK_FALSE(reader.exists("/a", diary.event()));
    const auto made = writer.create("/a", "");
    REQUIRE(made);
    ensemble.sim.run_for(seconds(1));
    CHECK(diary.take() == "created /a");
}

TEST_CASE("three voters: without a quorum a session is suspended, and its writes wait") {
    Ensemble ensemble;
    const std::uint32_t at = ensemble.follower();
    Sync zk = ensemble.open(at, seconds(20));
    REQUIRE(zk.create("/a", ""));
    Diary diary;
    zk.session().on_state(diary.state());
    ensemble.sim.isolate(at);
    REQUIRE(ensemble.sim.run_until([&] { return zk.session().state() == SessionState::suspended; },
                                   seconds(5)));
    zk.session().create("/b", "", diary.answer<coord::Created>("create"));
    zk.session().get("/b", diary.answer<coord::Data>("get"));
    ensemble.sim.run_for(seconds(2));
    CHECK(diary.take() == "suspended");
    ensemble.sim.heal();
    ensemble.sim.run_for(seconds(5));
    CHECK(diary.take() == "connected, create ok, get ok");
    CHECK(zk.session().state() == SessionState::connected);
}

TEST_CASE("three voters: a listener that is added by a listener hears of the next change") {
    Ensemble ensemble;
    const std::uint32_t at = ensemble.follower();
    Sync zk = ensemble.open(at, seconds(20));
    const Session session = zk.session();
    Diary diary;
    session.on_state([&](SessionState state) {
        diary.add("first");
        if (state == SessionState::suspended) session.on_state(diary.state("second"));
    });
    ensemble.sim.isolate(at);
    ensemble.sim.run_for(seconds(3));
    CHECK(diary.take() == "first");
    ensemble.sim.heal();
    ensemble.sim.run_for(seconds(3));
    CHECK(diary.take() == "first, second connected");
}

TEST_CASE("three voters: reads of a suspended session are answered, perhaps with old data") {
    Ensemble ensemble;
    const std::uint32_t at = ensemble.follower();
    Sync zk = ensemble.open(at, seconds(20));
    Sync other = ensemble.open(ensemble.leader(), seconds(20));
    REQUIRE(zk.create("/a", "old"));
    ensemble.sim.isolate(at);
    REQUIRE(ensemble.sim.run_until([&] { return zk.session().state() == SessionState::suspended; },
                                   seconds(5)));
    REQUIRE(other.set("/a", "new"));
    const auto read = zk.get("/a");
    REQUIRE(read);
    CHECK(read->bytes == "old");
    ensemble.sim.heal();
    REQUIRE(zk.sync());
    CHECK(zk.get("/a")->bytes == "new");
}

TEST_CASE("three voters: a session that is cut off for too long expires, and hears of it") {
    Ensemble ensemble;
    const std::uint32_t at = ensemble.follower();
    Sync zk = ensemble.open(at, seconds(2));
    Sync other = ensemble.open(ensemble.leader(), seconds(60));
    REQUIRE(zk.create("/e", "", CreateMode::ephemeral));
    Diary diary;
    zk.session().on_state(diary.state());
    REQUIRE(zk.exists("/e", diary.event("watch")));
    REQUIRE(other.sync());
    REQUIRE(other.exists("/e", diary.event("other")));
    ensemble.sim.isolate(at);
    zk.session().create("/late", "", diary.answer<coord::Created>("pending"));
    ensemble.sim.run_for(seconds(10));
    CHECK(diary.count("other deleted /e") == 1);
    CHECK(diary.count("expired") == 0);  // it cannot know
    CHECK(zk.session().certain_until() < ensemble.sim.clock(at));
    ensemble.sim.heal();
    ensemble.sim.run_for(seconds(5));
    CHECK(diary.count("expired") == 1);
    CHECK(diary.count("pending session_expired") == 1);
    CHECK(diary.count("watch deleted /e") <= 1);
    CHECK(zk.session().state() == SessionState::expired);
    CHECK(zk.create("/x", "").error() == Errc::session_expired);
    CHECK(zk.get("/").error() == Errc::session_expired);
    CHECK(zk.close().error() == Errc::session_expired);
    CHECK_FALSE(ensemble.sees(at, "/late"));
    Sync again = ensemble.open(at, seconds(2));
    CHECK(again.session().id() != zk.session().id());
    CHECK(again.create("/e", "", CreateMode::ephemeral));
}

TEST_CASE("three voters: what watchers hold may call on as their session expires") {
    Ensemble ensemble;
    const std::uint32_t at = ensemble.follower();
    Sync zk = ensemble.open(at, seconds(2));
    const Session& session = zk.session();
    int made = 0, answers = 0;
    const auto holder = [&] {
        made += 1;
        return std::shared_ptr<Holder>(new Holder{session, answers});
    };
    for (int i = 0; i < 20; i++) {
        session.exists("/a", [h = holder()](const coord::WatchEvent&) {}, {});
    }
    ensemble.sim.run_for(seconds(1));
    CHECK(ensemble.sim.replica(at).status().watches == 20);
    ensemble.sim.isolate(at);
    session.create("/late", "", {});
    for (int i = 0; i < 20; i++) {
        session.get("/late", [h = holder()](const coord::WatchEvent&) {}, {});
    }
    ensemble.sim.run_for(seconds(10));
    CHECK(answers == 0);
    ensemble.sim.heal();
    ensemble.sim.run_for(seconds(5));
    CHECK(session.state() == SessionState::expired);
    CHECK(ensemble.sim.replica(at).status().watches == 0);
    CHECK(made == 40);
    CHECK(answers == made * 4);  // each call is answered once, if only by session_expired
}

TEST_CASE("three voters: nobody sees an ephemeral node go before its session's certain_until") {
    for (std::uint32_t seed = 1; seed <= 20; seed++) {
        INFO("seed " << seed);
        Ensemble ensemble{seed};
        const std::uint32_t at = ensemble.follower(seed % 2);
        Sync zk = ensemble.open(at, milliseconds(800 + 100 * std::int64_t{seed}));
        REQUIRE(zk.create("/e", "", CreateMode::ephemeral));
        ensemble.sim.run_for(milliseconds(10 * std::int64_t{seed}));
        const std::uint32_t watcher = ensemble.leader();
        ensemble.sim.isolate(at);
        REQUIRE(ensemble.sim.run_until([&] { return !ensemble.sees(watcher, "/e"); }, seconds(30)));
        const Time until = zk.session().certain_until();
        CHECK(until != Time{});
        CHECK(ensemble.sim.when(at, until) < ensemble.sim.now());
    }
}

TEST_CASE("three voters: sessions outlive a leader, and its death executes each write once") {
    for (std::uint64_t seed = 1; seed <= 10; seed++) {
        INFO("seed " << seed);
        Ensemble ensemble{seed};
        const std::uint32_t leader = ensemble.leader();
        Sync zk = ensemble.open(ensemble.follower(), seconds(5));
        REQUIRE(zk.create("/q", ""));
        std::vector<Bytes> made;
        std::vector<int> order;
        // A write every 2 ms, and the leader dies in the midst of them.
        for (int i = 0; i < 300; i++) {
            zk.session().create("/q/", std::to_string(i), CreateMode::persistent_sequential,
                                [&, i](const coord::Result<coord::Created>& created) {
                                    REQUIRE(created);
                                    made.push_back(created->path);
                                    order.push_back(i);
                                });
            if (i == 100) ensemble.sim.crash_at_send(leader, static_cast<std::uint32_t>(seed));
            ensemble.sim.run_for(milliseconds(2));
        }
        REQUIRE(ensemble.sim.run_until([&] { return made.size() == 300; }, seconds(30)));
        CHECK_FALSE(ensemble.sim.is_running(leader));
        CHECK(zk.session().state() == SessionState::connected);
        const auto names = zk.children("/q");
        REQUIRE(names);
        CHECK(names->names.size() == 300);
        for (std::size_t i = 0; i < 300; i++) {
            CHECK(order[i] == static_cast<int>(i));
            CHECK(coord::sequence_of(made[i]) == static_cast<std::int64_t>(i));
            const auto data = zk.get(made[i]);
            REQUIRE(data);
            CHECK(data->bytes == std::to_string(i));
        }
    }
}

TEST_CASE("three voters: a lossy network changes no answer and no order") {
    for (std::uint64_t seed = 1; seed <= 5; seed++) {
        INFO("seed " << seed);
        Ensemble ensemble{seed};
        Sync zk = ensemble.open(ensemble.follower(), seconds(30));
        coord::SimulatedNetwork network;
        network.loss_permille = 100;
        network.repeat_permille = 100;
        network.delay_permille = 100;
        network.damage_permille = 20;
        ensemble.sim.set_network(network);
        REQUIRE(zk.create("/a", ""));
        std::vector<int> versions;
        for (int i = 0; i < 200; i++) {
            const Bytes data = std::to_string(i);
            zk.session().set("/a", data, i, [&](const coord::Result<coord::Stat>& set) {
                REQUIRE(set);
                versions.push_back(set->version);
            });
            if (i % 5 == 0) ensemble.sim.run_for(milliseconds(5));
        }
        REQUIRE(ensemble.sim.run_until([&] { return versions.size() == 200; }, seconds(60)));
        for (int i = 0; i < 200; i++) CHECK(versions[static_cast<std::size_t>(i)] == i + 1);
        CHECK(zk.get("/a")->bytes == "199");
    }
}

TEST_CASE("three voters: Sync gives up at a replica that is cut off; the write comes after all") {
    Ensemble ensemble;
    const std::uint32_t at = ensemble.follower();
    Sync zk = ensemble.open(at, seconds(30));
    ensemble.sim.isolate(at);
    ensemble.sim.run_for(seconds(2));
    Sync impatient{zk.session(), ensemble.sim.pump(seconds(1))};
    CHECK(impatient.create("/a", "late").error() == Errc::operation_timeout);
    CHECK(impatient.sync().error() == Errc::operation_timeout);
    CHECK_FALSE(ensemble.sees(ensemble.leader(), "/a"));
    ensemble.sim.heal();
    ensemble.sim.run_for(seconds(3));
    CHECK(ensemble.sees(ensemble.leader(), "/a"));
    CHECK(zk.get("/a")->bytes == "late");
}

TEST_CASE("three voters: open at a replica that is cut off waits, and makes one session") {
    Ensemble ensemble;
    const std::uint32_t at = ensemble.follower();
    const std::size_t before = ensemble.sim.replica(at).status().sessions;
    ensemble.sim.isolate(at);
    ensemble.sim.run_for(seconds(2));
    int opened = 0;
    Session::open(ensemble.sim.replica(at), {seconds(60)}, [&](coord::Result<Session> session) {
        CHECK(session);
        opened += 1;
    });
    ensemble.sim.run_for(seconds(3));
    CHECK(opened == 0);
    ensemble.sim.heal();
    ensemble.sim.run_for(seconds(3));
    CHECK(opened == 1);
    CHECK(ensemble.sim.replica(at).status().sessions == before + 1);
}

TEST_CASE("three voters: a session whose replica dies expires, and its ephemerals go") {
    Ensemble ensemble;
    const std::uint32_t at = ensemble.follower();
    const std::uint32_t other = ensemble.follower(1);
    {
        Sync zk = ensemble.open(at, seconds(2));
        REQUIRE(zk.create("/e", "", CreateMode::ephemeral));
        REQUIRE(zk.create("/p", ""));
    }
    ensemble.sim.crash(at);
    ensemble.sim.run_for(seconds(1));
    CHECK(ensemble.sees(other, "/e"));
    ensemble.sim.run_for(seconds(5));
    CHECK_FALSE(ensemble.sees(other, "/e"));
    CHECK(ensemble.sees(other, "/p"));
    ensemble.sim.restart(at);
    ensemble.sim.run_for(seconds(3));
    CHECK_FALSE(ensemble.sees(at, "/e"));
    CHECK(ensemble.sees(at, "/p"));
}

TEST_CASE("three voters: an idle session, and one that only reads, stay alive") {
    Ensemble ensemble;
    Sync idle = ensemble.open(ensemble.follower(0), seconds(1));
    Sync reading = ensemble.open(ensemble.follower(1), seconds(1));
    Diary diary;
    idle.session().on_state(diary.state("idle"));
    reading.session().on_state(diary.state("reading"));
    for (int i = 0; i < 100; i++) {
        ensemble.sim.run_for(milliseconds(100));
        REQUIRE(reading.get("/"));
    }
    CHECK(diary.take() == "");
    CHECK(idle.create("/a", ""));
}

TEST_CASE("three voters: leaders that change all the time take no session that is alive") {
    Ensemble ensemble{3};
    Sync zk = ensemble.open(1, seconds(3));
    REQUIRE(zk.create("/e", "", CreateMode::ephemeral));
    for (int round = 0; round < 8; round++) {
        const std::uint32_t leader = ensemble.leader();
        REQUIRE(leader != 0);
        if (leader == 1) {
            ensemble.sim.run_for(milliseconds(500));
        }
        ensemble.sim.pause(leader == 1 ? 2 : leader);
        ensemble.sim.run_for(milliseconds(1500));
        ensemble.sim.resume(leader == 1 ? 2 : leader);
        ensemble.sim.run_for(milliseconds(1000));
    }
    CHECK(zk.session().state() == SessionState::connected);
    CHECK(zk.set("/e", "alive"));
}

TEST_CASE("three voters: the same seed gives the same run") {
    std::uint64_t hash[2] = {};
    for (std::uint64_t& each : hash) {
        Ensemble ensemble{11};
        Sync zk = ensemble.open(ensemble.follower(), seconds(3));
        for (int i = 0; i < 20; i++) {
            REQUIRE(zk.create("/s-", "", CreateMode::ephemeral_sequential));
        }
        ensemble.sim.isolate(ensemble.leader());
        ensemble.sim.run_for(seconds(3));
        each = ensemble.sim.hash();
    }
    CHECK(hash[0] == hash[1]);
}

}  // TEST_SUITE
