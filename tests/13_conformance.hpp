// What a client of ZooKeeper may count on, as named cases over the session's interface alone. They
// know nothing of what is behind it: the file that includes this one says what there is, by
// conformance::worlds. Numbers in the names are sections of a reading of ZooKeeper's semantics:
//
//    1.4 ACLs          1.5 quotas
//    2.2 paths         2.5 versions    2.8 kinds of nodes     2.11 zxids      2.14 limits
//    2.3 checks        2.6 Stat        2.9 multi              2.12 sessions
//    2.4 sequences     2.7 data        2.10 watches           2.13 consistency
//
// Where coord differs on purpose, the case says so: "differs". What is not there to be asked stands
// in a table at the end.
#pragma once

#include <doctest/doctest.h>

#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "support.hpp"

namespace conformance {

using coord::Acl;
using coord::AddWatchMode;
using coord::Bytes;
using coord::BytesView;
using coord::CreateMode;
using coord::Errc;
using coord::Multi;
using coord::Op;
using coord::Session;
using coord::Stat;
using coord::Sync;
using coord::WatcherType;
using coord::WatchEvent;
using coord::Zxid;
using Lines = std::vector<std::string>;

// A fresh tree, and sessions of it.
class World {
public:
    virtual ~World() = default;
    virtual Sync open() = 0;    // one more session, where there is a choice at another place
    virtual void settle() = 0;  // until what was asked is answered, and everybody has heard of it
};

struct WorldKind {
    const char* name;
    std::unique_ptr<World> (*make)();
};
// The including file's: the worlds, and whether a case is known to fail in them. Then it must.
const std::vector<WorldKind>& worlds();
bool differs(const char* title);

// Writes down events, as "name: event path", and answers, as "name: error".
struct Heard {
    Lines lines;
    std::vector<Zxid> zxids;  // of the events

    static std::string word(coord::EventType type) {
        switch (type) {
            case coord::EventType::none: break;
            case coord::EventType::created: return "created";
            case coord::EventType::deleted: return "deleted";
            case coord::EventType::data_changed: return "changed";
            case coord::EventType::children_changed: return "children";
            case coord::EventType::data_watch_removed: return "data removed";
            case coord::EventType::child_watch_removed: return "child removed";
            case coord::EventType::persistent_watch_removed: return "persistent removed";
        }
        return "none";
    }
    coord::Watcher event(const std::string& who) {
        return [this, who](const WatchEvent& event) {
            lines.push_back(who + ": " + word(event.type) + " " + event.path);
            zxids.push_back(event.zxid);
        };
    }
    template <class T>
    std::function<void(coord::Result<T>)> answer(const std::string& who) {
        return [this, who](const coord::Result<T>& result) {
            lines.push_back(who + ": " + coord::name(result.error()));
        };
    }
    Lines take() { return std::exchange(lines, {}); }
};

inline Stat stat_of(const Sync& zk, BytesView path) {
    const auto stat = zk.exists(path);
    REQUIRE(stat);
    return *stat;
}

inline Bytes path_of(const coord::Result<coord::Created>& created) {
    return created ? created->path : Bytes(coord::name(created.error()));
}

inline std::vector<Errc> errors(const Multi& multi) {
    std::vector<Errc> result;
    for (const coord::Part& part : multi.parts) result.push_back(part.error);
    return result;
}

constexpr CreateMode sequential = CreateMode::persistent_sequential;

#define CONFORMANCE_JOIN_(a, b) a##b
#define CONFORMANCE_JOIN(a, b) CONFORMANCE_JOIN_(a, b)
#define CONFORMANCE_CASE(title)                                            \
    static void CONFORMANCE_JOIN(case_, __LINE__)(World & world);          \
    TEST_CASE(title * doctest::should_fail(differs(title))) {              \
        for (const WorldKind& kind : worlds()) {                           \
            INFO(kind.name);                                               \
            CONFORMANCE_JOIN(case_, __LINE__)(*kind.make());               \
        }                                                                  \
    }                                                                      \
    static void CONFORMANCE_JOIN(case_, __LINE__)([[maybe_unused]] World & world)

TEST_SUITE("13 conformance") {

// -- 2.2 Paths -----------------------------------------------------------------------------------

inline void is_refused(const Sync& zk, const Bytes& path) {
    INFO(path);
    CHECK(zk.create(path, "").error() == Errc::bad_arguments);
    CHECK(zk.create(path, "", CreateMode::ephemeral).error() == Errc::bad_arguments);
    CHECK(zk.set(path, "").error() == Errc::bad_arguments);
    CHECK(zk.remove(path).error() == Errc::bad_arguments);
    CHECK(zk.exists(path).error() == Errc::bad_arguments);
    CHECK(zk.get(path).error() == Errc::bad_arguments);
    CHECK(zk.children(path).error() == Errc::bad_arguments);
    CHECK(zk.multi({Op::check(path)}).error == Errc::bad_arguments);
    CHECK(zk.remove_watches(path).error() == Errc::bad_arguments);
}

inline void is_a_name(const Sync& zk, const Bytes& name) {
    INFO(name);
    const Bytes path = "/" + name;
    CHECK(path_of(zk.create(path, "x")) == path);
    CHECK(zk.get(path));
    CHECK(zk.remove(path));
}

CONFORMANCE_CASE("2.2 a path that is empty, or does not begin with a slash, is refused") {
    const Sync zk = world.open();
    for (const char* const path : {"", "a", "a/b", ".", " /a"}) is_refused(zk, path);
}

CONFORMANCE_CASE("2.2 a path ending in a slash is refused") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/a", ""));
    for (const char* const path : {"/a/", "/a/b/", "//"}) is_refused(zk, path);
}

CONFORMANCE_CASE("2.2 but for a sequential create, where the number is the name") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/a", ""));
    CHECK(path_of(zk.create("/a/", "", sequential)) == "/a/0000000000");
    CHECK(path_of(zk.create("/a/.", "", sequential)) == "/a/.0000000001");
    CHECK(path_of(zk.create("/a/..", "", sequential)) == "/a/..0000000002");
    CHECK(zk.create("/a//", "", sequential).error() == Errc::bad_arguments);
    CHECK(zk.create("a", "", sequential).error() == Errc::bad_arguments);
}

CONFORMANCE_CASE("2.2 an element that is empty, a dot or two dots is refused") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/a", ""));
    for (const char* const path :
         {"//a", "/a//b", "/.", "/..", "/a/.", "/a/..", "/./a", "/a/../b"}) {
        is_refused(zk, path);
    }
}

CONFORMANCE_CASE("2.2 dots within a name are letters like others") {
    const Sync zk = world.open();
    for (const char* const name : {".x", "..x", "x.", "x..", "...", "a.b", ". ", " "}) {
        is_a_name(zk, name);
    }
}

CONFORMANCE_CASE("2.2 NUL and the other control characters are refused") {
    const Sync zk = world.open();
    is_refused(zk, Bytes("/\0", 2)), is_refused(zk, Bytes("/a\0b", 4));
    for (const char* const path : {"/\x01", "/a\x1f", "/\x7f", "/\n", "/\xc2\x80", "/\xc2\x9f"}) {
        is_refused(zk, path);
    }
    for (const char* const name : {" ", "~", "\xc2\xa0"}) is_a_name(zk, name);
}

CONFORMANCE_CASE("2.2 surrogates, private use, specials and all beyond the basic plane: refused") {
    const Sync zk = world.open();
    for (const char* const path :
         {"/\xed\xa0\x80", "/\xee\x80\x80", "/\xef\xa3\xbf", "/\xef\xbf\xb0", "/\xef\xbf\xbd",
          "/\xef\xbf\xbf", "/\xf0\x9f\x98\x80"}) {
        is_refused(zk, path);
    }
    for (const char* const name : {"\xed\x9f\xbf", "\xef\xa4\x80", "\xef\xbf\xaf", "\xc3\xa4"}) {
        is_a_name(zk, name);
    }
}

CONFORMANCE_CASE("2.2 the root is there: it is set and listed, and not created or removed") {
    const Sync zk = world.open();
    CHECK(zk.create("/", "").error() == Errc::node_exists);
    CHECK(zk.remove("/").error() == Errc::bad_arguments);
    CHECK(zk.set("/", "value"));
    CHECK(zk.get("/")->bytes == "value");
    CHECK(zk.children("/")->names == std::vector<Bytes>{"zookeeper"});
}

CONFORMANCE_CASE("2.2 /zookeeper, its config and its quota are there and stay; more may be below") {
    const Sync zk = world.open();
    CHECK(zk.children("/zookeeper")->names == std::vector<Bytes>{"config", "quota"});
    for (const char* const path : {"/zookeeper", "/zookeeper/config", "/zookeeper/quota"}) {
        CHECK(zk.exists(path));
        CHECK(zk.remove(path).error() == Errc::bad_arguments);
        CHECK(zk.remove(path, 99).error() == Errc::bad_arguments);
    }
    CHECK(zk.create("/zookeeper/mine", ""));
    CHECK(zk.remove("/zookeeper/mine"));
}

CONFORMANCE_CASE("2.2 the config says who votes and since when; nobody sets it") {
    const Sync zk = world.open();
    const auto config = zk.get("/zookeeper/config");
    REQUIRE(config);
    CHECK(config->bytes.find("server.1=participant\n") == 0);
    char version[32];
    std::snprintf(version, sizeof version, "\nversion=%llx",
                  static_cast<unsigned long long>(config->stat.mzxid.value));
    const std::size_t at = config->bytes.rfind("\n");
    CHECK(config->bytes.substr(at) == version);
    CHECK(config->stat.data_length == static_cast<std::int32_t>(config->bytes.size()));
    CHECK(config->stat.mzxid != Zxid{});
    CHECK(config->stat.version == 1);  // differs: there it is -1, which means any
    CHECK(zk.set("/zookeeper/config", "").error() == Errc::no_auth);
    CHECK(zk.multi({Op::set("/zookeeper/config", "")}).error == Errc::no_auth);
    CHECK(zk.create_or_set("/zookeeper/config", "").error() == Errc::no_auth);
    CHECK(zk.remove("/zookeeper/config").error() == Errc::bad_arguments);
    CHECK(zk.get("/zookeeper/config")->bytes == config->bytes);
}

CONFORMANCE_CASE("2.5 reconfig is for who may write the config; its answer comes in turn") {
    const Sync zk = world.open();
    coord::Reconfig change;
    CHECK(zk.reconfig(change).error() == Errc::bad_arguments);  // it says nothing
    change.leaving.emplace_back(1u);
    Heard heard;
    const Session& s = zk.session();
    s.create("/a", "", CreateMode::persistent, heard.answer<coord::Created>("create"));
    s.reconfig(change, heard.answer<coord::Data>("reconfig"));
    s.set("/a", "x", heard.answer<Stat>("set"));
    CHECK(zk.get("/a")->bytes == "x");
    CHECK(heard.take() == Lines{"create: ok", std::string("reconfig: ") +
                                                  coord::name(Errc::no_auth), "set: ok"});
}

// -- 2.3 Which error wins ------------------------------------------------------------------------

CONFORMANCE_CASE("2.3 create: mode, path, parent, the node itself, an ephemeral parent") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/e", "", CreateMode::ephemeral));
    const auto no_mode = static_cast<CreateMode>(99);
    CHECK(zk.create("/no/such", "", no_mode).error() == Errc::bad_arguments);
    CHECK(zk.create("/no/such/", "").error() == Errc::bad_arguments);
    CHECK(zk.create("/no/such", "").error() == Errc::no_node);
    CHECK(zk.create("/e/f/g", "").error() == Errc::no_node);
    CHECK(zk.create("/e", "").error() == Errc::node_exists);
    CHECK(zk.create("/e", "", CreateMode::ephemeral).error() == Errc::node_exists);
    CHECK(zk.create("/e/f", "").error() == Errc::no_children_for_ephemerals);
    CHECK(zk.create("/e/", "", sequential).error() == Errc::no_children_for_ephemerals);
}

CONFORMANCE_CASE("2.3 delete: path, parent and node, version, children") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/a", ""));
    REQUIRE(zk.create("/a/b", ""));
    CHECK(zk.remove("/no/such", 7).error() == Errc::no_node);
    CHECK(zk.remove("/a/no", 7).error() == Errc::no_node);
    CHECK(zk.remove("/a", 7).error() == Errc::bad_version);
    CHECK(zk.remove("/a", 0).error() == Errc::not_empty);
    CHECK(zk.remove("/a").error() == Errc::not_empty);
    CHECK(zk.remove("/a/b", 0));
    CHECK(zk.remove("/a", 0));
}

CONFORMANCE_CASE("2.3 set: node, then version; check within a multi the same") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/a", ""));
    CHECK(zk.set("/no", "", 7).error() == Errc::no_node);
    CHECK(zk.set("/a", "", 7).error() == Errc::bad_version);
    CHECK(zk.multi({Op::check("/no", 7)}).error == Errc::no_node);
    CHECK(zk.multi({Op::check("/a", 7)}).error == Errc::bad_version);
    CHECK(zk.multi({Op::check("/a", 0)}));
    CHECK(zk.multi({Op::check("/a")}));
}

CONFORMANCE_CASE("2.3 reads of what is not there: no_node") {
    const Sync zk = world.open();
    for (const char* const path : {"/no", "/no/such", "/zookeeper/no"}) {
        CHECK(zk.exists(path).error() == Errc::no_node);
        CHECK(zk.get(path).error() == Errc::no_node);
        CHECK(zk.children(path).error() == Errc::no_node);
    }
}

CONFORMANCE_CASE("2.3 writes that are asked for at once see each other, in order") {
    const Sync zk = world.open();
    const Session& s = zk.session();
    Heard heard;
    s.create("/a/b", "", heard.answer<coord::Created>("1"));
    s.create("/a", "", heard.answer<coord::Created>("2"));
    s.create("/a/b", "", heard.answer<coord::Created>("3"));
    s.remove("/a", heard.answer<void>("4"));
    s.set("/a/b", "", 0, heard.answer<Stat>("5"));
    s.set("/a/b", "", 0, heard.answer<Stat>("6"));
    s.remove("/a/b", 1, heard.answer<void>("7"));
    s.remove("/a", heard.answer<void>("8"));
    s.exists("/a", heard.answer<Stat>("9"));
    world.settle();
    CHECK(heard.take() == Lines{"1: no_node", "2: ok", "3: ok", "4: not_empty", "5: ok",
                                "6: bad_version", "7: ok", "8: ok", "9: no_node"});
}

// -- 2.4 Sequence numbers ------------------------------------------------------------------------

CONFORMANCE_CASE("2.4 a sequential name has ten digits, from 0, of all creates below the parent") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/p", ""));
    CHECK(path_of(zk.create("/p/a-", "", sequential)) == "/p/a-0000000000");
    CHECK(path_of(zk.create("/p/b-", "", sequential)) == "/p/b-0000000001");
    CHECK(zk.create("/p/plain", ""));
    CHECK(path_of(zk.create("/p/a-", "", CreateMode::ephemeral_sequential)) == "/p/a-0000000003");
    CHECK(zk.set("/p/plain", "x"));
    CHECK(zk.create("/p/plain/child", ""));
    CHECK(path_of(zk.create("/p/a-", "", sequential)) == "/p/a-0000000004");
}

CONFORMANCE_CASE("2.4 deletes give no number back, and neither does a failed create take one") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/p", ""));
    CHECK(path_of(zk.create("/p/a", "", sequential)) == "/p/a0000000000");
    CHECK(zk.remove("/p/a0000000000"));
    CHECK(path_of(zk.create("/p/a", "", sequential)) == "/p/a0000000001");
    CHECK(zk.create("/p/a0000000001", "").error() == Errc::node_exists);
    CHECK(path_of(zk.create("/p/a", "", sequential)) == "/p/a0000000002");
}

CONFORMANCE_CASE("2.4 a number whose name is taken is node_exists, until another create takes it") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/p", ""));
    REQUIRE(zk.create("/p/a0000000001", ""));
    for (int i = 0; i < 2; i++) {
        CHECK(zk.create("/p/a", "", sequential).error() == Errc::node_exists);
    }
    CHECK(path_of(zk.create("/p/b", "", sequential)) == "/p/b0000000001");
    CHECK(path_of(zk.create("/p/a", "", sequential)) == "/p/a0000000002");
}

CONFORMANCE_CASE("2.4 a parent that is made anew counts from 0 again") {
    const Sync zk = world.open();
    for (int i = 0; i < 2; i++) {
        REQUIRE(zk.create("/p", ""));
        CHECK(path_of(zk.create("/p/a", "", sequential)) == "/p/a0000000000");
        REQUIRE(zk.remove("/p/a0000000000"));
        REQUIRE(zk.remove("/p"));
    }
}

CONFORMANCE_CASE("2.4 sessions count together") {
    const Sync one = world.open(), two = world.open();
    REQUIRE(one.create("/p", ""));
    CHECK(path_of(one.create("/p/a", "", sequential)) == "/p/a0000000000");
    CHECK(path_of(two.create("/p/a", "", sequential)) == "/p/a0000000001");
    CHECK(path_of(one.create("/p/a", "", sequential)) == "/p/a0000000002");
}

CONFORMANCE_CASE("2.4 in a multi each create counts, and none of one that failed") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/p", ""));
    const Multi good = zk.multi({Op::create("/p/a", "", sequential), Op::create("/p/b", ""),
                                 Op::create("/p/a", "", sequential)});
    REQUIRE(good);
    CHECK(good.parts[0].path == "/p/a0000000000");
    CHECK(good.parts[2].path == "/p/a0000000002");
    CHECK_FALSE(zk.multi({Op::create("/p/a", "", sequential), Op::check("/no")}));
    CHECK(path_of(zk.create("/p/a", "", sequential)) == "/p/a0000000003");
}

// -- 2.5 Versions --------------------------------------------------------------------------------

CONFORMANCE_CASE("2.5 a version counts the sets from 0, of an equal value too") {
    const Sync zk = world.open();
    CHECK(zk.create("/a", "x")->stat.version == 0);
    CHECK(zk.set("/a", "x")->version == 1);
    CHECK(zk.set("/a", "x", 1)->version == 2);
    CHECK(zk.set("/a", "x", 1).error() == Errc::bad_version);
    CHECK(zk.set("/a", "x", 3).error() == Errc::bad_version);
    CHECK(stat_of(zk, "/a").version == 2);
    CHECK(zk.set("/a", "x", coord::any_version)->version == 3);
}

CONFORMANCE_CASE("2.5 a delete is of a version of the data, whatever became of the children") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/a", ""));
    REQUIRE(zk.create("/a/b", ""));
    REQUIRE(zk.remove("/a/b"));
    CHECK(stat_of(zk, "/a").version == 0);
    CHECK(zk.remove("/a", 1).error() == Errc::bad_version);
    CHECK(zk.remove("/a", 2).error() == Errc::bad_version);
    CHECK(zk.remove("/a", 0));
}

CONFORMANCE_CASE("2.5 a node that is made anew begins at 0: its czxid tells it from the old one") {
    const Sync zk = world.open();
    const auto old = zk.create("/a", "");
    REQUIRE(zk.set("/a", ""));
    REQUIRE(zk.remove("/a"));
    const auto anew = zk.create("/a", "");
    REQUIRE(anew);
    CHECK(anew->stat.version == 0);
    CHECK(anew->stat.czxid > old->stat.czxid);
    CHECK(zk.set("/a", "", 0));
}

// -- 2.6 Stat ------------------------------------------------------------------------------------

CONFORMANCE_CASE("2.6 create: of the node all is new; of the parent cversion, children and pzxid") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/p", "value"));
    const Stat before = stat_of(zk, "/p");
    const Stat x = zk.create("/p/x", "abc")->stat;
    CHECK(x.mzxid == x.czxid);
    CHECK(x.pzxid == x.czxid);
    CHECK(x.mtime_ms == x.ctime_ms);
    CHECK(x.version == 0);
    CHECK(x.cversion == 0);
    CHECK(x.aversion == 0);
    CHECK(x.ephemeral_owner == coord::SessionId{});
    CHECK(x.data_length == 3);
    CHECK(x.num_children == 0);
    const Stat after = stat_of(zk, "/p");
    CHECK(after.cversion == before.cversion + 1);
    CHECK(after.num_children == before.num_children + 1);
    CHECK(after.pzxid == x.czxid);
    CHECK(after.mzxid == before.mzxid);
    CHECK(after.mtime_ms == before.mtime_ms);
    CHECK(after.version == before.version);
}

CONFORMANCE_CASE("2.6 delete: of the parent cversion, children and pzxid") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/p", ""));
    REQUIRE(zk.create("/p/x", ""));
    const Stat before = stat_of(zk, "/p");
    REQUIRE(zk.remove("/p/x"));
    const Stat after = stat_of(zk, "/p");
    CHECK(after.cversion == before.cversion + 1);
    CHECK(after.num_children == 0);
    CHECK(after.pzxid > before.pzxid);
    CHECK(after.mzxid == before.mzxid);
    CHECK(after.version == before.version);
}

CONFORMANCE_CASE("2.6 set: version, mzxid, mtime and length; nothing of the parent") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/p", ""));
    const Stat made = zk.create("/p/x", "abc")->stat;
    const Stat parent = stat_of(zk, "/p");
    const auto set = zk.set("/p/x", "longer");
    REQUIRE(set);
    CHECK(set->version == 1);
    CHECK(set->mzxid > made.mzxid);
    CHECK(set->mtime_ms >= made.mtime_ms);
    CHECK(set->data_length == 6);
    CHECK(set->czxid == made.czxid);
    CHECK(set->ctime_ms == made.ctime_ms);
    CHECK(set->pzxid == made.pzxid);
    CHECK(set->cversion == 0);
    const Stat after = stat_of(zk, "/p");
    CHECK(after.mzxid == parent.mzxid);
    CHECK(after.pzxid == parent.pzxid);
    CHECK(after.cversion == parent.cversion);
    CHECK(after.version == parent.version);
}

CONFORMANCE_CASE("2.6 cversion is of creates and deletes of children, not of grandchildren") {
    const Sync zk = world.open();
    for (const char* const path : {"/p", "/p/a", "/p/a/b", "/p/c"}) REQUIRE(zk.create(path, ""));
    CHECK(stat_of(zk, "/p").cversion == 2);
    CHECK(stat_of(zk, "/p").num_children == 2);
    REQUIRE(zk.remove("/p/a/b"));
    REQUIRE(zk.remove("/p/a"));
    CHECK(stat_of(zk, "/p").cversion == 3);
    CHECK(stat_of(zk, "/p").num_children == 1);
}

CONFORMANCE_CASE("2.6 reads, sync and what fails change nothing") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/p", ""));
    REQUIRE(zk.create("/p/x", ""));
    const Stat before = stat_of(zk, "/p");
    REQUIRE(zk.get("/p"));
    REQUIRE(zk.children("/p"));
    REQUIRE(zk.sync());
    CHECK_FALSE(zk.create("/p/x", ""));
    CHECK_FALSE(zk.set("/p", "", 9));
    CHECK_FALSE(zk.remove("/p"));
    CHECK_FALSE(zk.multi({Op::set("/p", "y"), Op::create("/p/y", ""), Op::check("/no")}));
    const Stat after = stat_of(zk, "/p");
    CHECK(after.mzxid == before.mzxid);
    CHECK(after.pzxid == before.pzxid);
    CHECK(after.cversion == before.cversion);
    CHECK(after.version == before.version);
    CHECK(after.mtime_ms == before.mtime_ms);
}

CONFORMANCE_CASE("2.6 the root begins with zxids and times of 0, and a cversion of -1") {
    const Sync zk = world.open();
    const Stat root = stat_of(zk, "/");
    CHECK(root.czxid == Zxid{});
    CHECK(root.pzxid == Zxid{});
    CHECK(root.ctime_ms == 0);
    CHECK(root.cversion == -1);
    CHECK(root.num_children == 1);
    REQUIRE(zk.create("/a", ""));
    CHECK(stat_of(zk, "/").cversion == 0);
}

CONFORMANCE_CASE("2.6 every read of a node gives the same Stat, and so does its create or set") {
    const Sync zk = world.open();
    const Stat made = zk.create("/a", "x")->stat;
    CHECK(stat_of(zk, "/a").czxid == made.czxid);
    const Stat set = *zk.set("/a", "y");
    for (const Stat& stat : {stat_of(zk, "/a"), zk.get("/a")->stat, zk.children("/a")->stat}) {
        CHECK(stat.czxid == set.czxid);
        CHECK(stat.mzxid == set.mzxid);
        CHECK(stat.mtime_ms == set.mtime_ms);
        CHECK(stat.version == set.version);
        CHECK(stat.data_length == set.data_length);
    }
}

// -- 2.7 Data ------------------------------------------------------------------------------------

CONFORMANCE_CASE("2.7 a value is any bytes, and written as a whole") {
    const Sync zk = world.open();
    Bytes all;
    for (int i = 0; i < 256; i++) all.push_back(static_cast<char>(i));
    REQUIRE(zk.create("/a", all));
    CHECK(zk.get("/a")->bytes == all);
    CHECK(zk.get("/a")->stat.data_length == 256);
    REQUIRE(zk.set("/a", "b"));
    CHECK(zk.get("/a")->bytes == "b");
    REQUIRE(zk.set("/a", ""));
    CHECK(zk.get("/a")->bytes == "");
    CHECK(zk.get("/a")->stat.data_length == 0);
}

CONFORMANCE_CASE("2.7 null data is kept apart from no bytes; the length of both is 0") {
    const Sync zk = world.open(), other = world.open();
    REQUIRE(zk.create("/null", coord::null_data));
    REQUIRE(zk.create("/empty", ""));
    REQUIRE(other.sync());
    CHECK(other.get("/null")->is_null);
    CHECK_FALSE(other.get("/empty")->is_null);
    CHECK(other.get("/null")->bytes.empty());
    CHECK(other.get("/null")->stat.data_length == 0);
    REQUIRE(zk.multi({Op::set("/null", ""), Op::set("/empty", coord::null_data)}));
    REQUIRE(other.sync());
    CHECK_FALSE(other.get("/null")->is_null);
    CHECK(other.get("/empty")->is_null);
    CHECK_FALSE(zk.get("/")->is_null);
}

// -- 2.8 Ephemeral nodes, containers, nodes with a ttl -------------------------------------------

CONFORMANCE_CASE("2.8 an ephemeral has an owner and no children, and goes with its session") {
    const Sync zk = world.open(), other = world.open();
    REQUIRE(zk.create("/p", ""));
    const auto made = zk.create("/p/e", "", CreateMode::ephemeral);
    REQUIRE(made);
    CHECK(made->stat.ephemeral_owner == zk.session().id());
    CHECK(zk.create("/p/e/c", "").error() == Errc::no_children_for_ephemerals);
    REQUIRE(zk.close());
    REQUIRE(other.sync());
    CHECK(other.exists("/p/e").error() == Errc::no_node);
    CHECK(other.exists("/p"));
}

CONFORMANCE_CASE("2.8 any session may set and remove an ephemeral; its owner stays the same") {
    const Sync zk = world.open(), other = world.open();
    REQUIRE(zk.create("/e", "", CreateMode::ephemeral));
    REQUIRE(other.sync());
    const auto set = other.set("/e", "x");
    REQUIRE(set);
    CHECK(set->ephemeral_owner == zk.session().id());
    CHECK(other.create("/e", "").error() == Errc::node_exists);  // which does not tell whose
    CHECK(other.remove("/e"));
    CHECK(other.create("/e", "", CreateMode::ephemeral)->stat.ephemeral_owner ==
          other.session().id());
    REQUIRE(zk.close());
    REQUIRE(other.sync());
    CHECK(other.exists("/e"));
}

CONFORMANCE_CASE("2.8 the ephemerals of a session go in one step, of one zxid") {
    const Sync zk = world.open(), other = world.open();
    REQUIRE(zk.create("/p", ""));
    Heard heard;
    for (const char* const path : {"/p/a", "/p/b", "/p/c"}) {
        REQUIRE(zk.create(path, "", CreateMode::ephemeral));
        REQUIRE(other.sync());
        REQUIRE(other.exists(path, heard.event("w")));
    }
    REQUIRE(zk.close());
    world.settle();
    REQUIRE(heard.zxids.size() == 3);
    CHECK(heard.zxids[0] == heard.zxids[1]);
    CHECK(heard.zxids[1] == heard.zxids[2]);
    CHECK(stat_of(other, "/p").pzxid == heard.zxids[0]);
    CHECK(stat_of(other, "/p").cversion == 6);
}

CONFORMANCE_CASE("2.8 containers and nodes with a ttl may have children, and show no owner") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/c", "", CreateMode::container));
    REQUIRE(zk.create("/t", "", CreateMode::persistent_with_ttl, coord::seconds(1000)));
    const auto numbered = zk.create("/c/n-", "", CreateMode::persistent_sequential_with_ttl,
                                    coord::seconds(1000));
    CHECK(path_of(numbered) == "/c/n-0000000000");
    CHECK(zk.create("/t/a", "", CreateMode::ephemeral));
    for (const char* const path : {"/c", "/t", "/c/n-0000000000"}) {
        CHECK(stat_of(zk, path).ephemeral_owner == coord::SessionId{});
    }
    CHECK(zk.remove("/c").error() == Errc::not_empty);
    CHECK(zk.remove("/c/n-0000000000"));
    CHECK(zk.remove("/c"));
}

CONFORMANCE_CASE("2.3 a ttl is of 1 to 2^40-1 ms, and of the modes that have one") {
    const Sync zk = world.open();
    constexpr std::int64_t most = (std::int64_t{1} << 40) - 1;
    const auto made = [&](CreateMode mode, std::int64_t ttl_ms) {
        return zk.create("/t", "", mode, coord::milliseconds(ttl_ms)).error();
    };
    CHECK(made(CreateMode::persistent_with_ttl, 0) == Errc::bad_arguments);
    CHECK(made(CreateMode::persistent_with_ttl, -1) == Errc::bad_arguments);
    CHECK(made(CreateMode::persistent_with_ttl, most + 1) == Errc::bad_arguments);
    CHECK(made(CreateMode::persistent, 1) == Errc::bad_arguments);
    CHECK(made(CreateMode::container, 1) == Errc::bad_arguments);
    CHECK(made(CreateMode::ephemeral, 1) == Errc::bad_arguments);
    CHECK(made(CreateMode::persistent_with_ttl, most) == Errc::ok);
}

CONFORMANCE_CASE("2.9 several reads are answered at one moment, each with its own error") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/a", "x"));
    REQUIRE(zk.create("/a/b", ""));
    const auto read = zk.multi_read({coord::Query::get("/a"), coord::Query::get("/none"),
                                     coord::Query::children("/a"), coord::Query::exists("/a/b")});
    REQUIRE(read);
    REQUIRE(read->parts.size() == 4);
    CHECK(read->parts[0].bytes == "x");
    CHECK(read->parts[1].error == Errc::no_node);
    CHECK(read->parts[2].names == std::vector<Bytes>{"b"});
    CHECK(read->parts[3].stat.czxid == stat_of(zk, "/a/b").czxid);
}

CONFORMANCE_CASE("the ephemerals of a session, and how many nodes are below a path") {
    const Sync zk = world.open(), other = world.open();
    for (const char* const path : {"/p", "/p/a", "/q"}) REQUIRE(zk.create(path, ""));
    for (const char* const path : {"/p/e2", "/p/e1", "/q/e"}) {
        REQUIRE(zk.create(path, "", CreateMode::ephemeral));
    }
    const auto mine = zk.read(coord::Query::ephemerals("/p/"));
    REQUIRE(mine);
    CHECK(mine->names == std::vector<Bytes>{"/p/e1", "/p/e2"});
    REQUIRE(other.sync());
    CHECK(other.read(coord::Query::ephemerals("/"))->names.empty());
    CHECK(other.read(coord::Query::descendants("/p"))->count == 3);
    CHECK(other.read(coord::Query::descendants("/p/a"))->count == 0);
    CHECK(other.read(coord::Query::descendants("/no")).error() == Errc::no_node);
}

// -- 2.9 Multi -----------------------------------------------------------------------------------

CONFORMANCE_CASE("2.9 a multi has one zxid, and each part sees what those before it did") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/old", ""));
    const Multi done = zk.multi({Op::create("/a", ""), Op::create("/a/b", "x"),
                                 Op::set("/a/b", "y", 0), Op::check("/a/b", 1),
                                 Op::remove("/old"), Op::create("/old", "new")});
    REQUIRE(done);
    CHECK(errors(done) == std::vector<Errc>(6, Errc::ok));
    CHECK(done.parts[0].path == "/a");
    CHECK(done.parts[5].path == "/old");
    CHECK(done.parts[2].stat.version == 1);
    const Stat b = stat_of(zk, "/a/b");
    CHECK(b.mzxid == b.czxid);
    CHECK(stat_of(zk, "/a").czxid == b.czxid);
    CHECK(stat_of(zk, "/old").czxid == b.czxid);
    CHECK(stat_of(zk, "/").pzxid == b.czxid);
    CHECK(zk.get("/old")->bytes == "new");
}

CONFORMANCE_CASE("2.9 where a part fails: ok before, its error, runtime_inconsistency after") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/a", "x"));
    const Multi failed = zk.multi({Op::create("/b", ""), Op::set("/a", "y"), Op::set("/a", "z", 7),
                                   Op::create("/c", ""), Op::check("/no")});
    CHECK(failed.error == Errc::bad_version);
    CHECK(errors(failed) == std::vector<Errc>{Errc::ok, Errc::ok, Errc::bad_version,
                                              Errc::runtime_inconsistency,
                                              Errc::runtime_inconsistency});
    CHECK(zk.get("/a")->bytes == "x");
    CHECK(zk.exists("/b").error() == Errc::no_node);
    CHECK(zk.exists("/c").error() == Errc::no_node);
}

CONFORMANCE_CASE("2.9 each error of a part is that of the call by itself") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/a", ""));
    REQUIRE(zk.create("/a/b", ""));
    REQUIRE(zk.create("/e", "", CreateMode::ephemeral));
    CHECK(zk.multi({Op::create("/a", "")}).error == Errc::node_exists);
    CHECK(zk.multi({Op::create("/no/a", "")}).error == Errc::no_node);
    CHECK(zk.multi({Op::create("/e/a", "")}).error == Errc::no_children_for_ephemerals);
    CHECK(zk.multi({Op::remove("/a")}).error == Errc::not_empty);
    CHECK(zk.multi({Op::remove("/no")}).error == Errc::no_node);
    CHECK(zk.multi({Op::remove("/a/b", 3)}).error == Errc::bad_version);
    CHECK(zk.multi({Op::set("/no", "")}).error == Errc::no_node);
}

CONFORMANCE_CASE("2.9 differs: a bad path is bad_arguments for the whole, and no parts come back") {
    const Sync zk = world.open();
    const Multi refused = zk.multi({Op::create("/a", ""), Op::create("b", "")});
    CHECK(refused.error == Errc::bad_arguments);
    CHECK(refused.parts.empty());
    CHECK(zk.exists("/a").error() == Errc::no_node);
}

CONFORMANCE_CASE("2.9 a multi of no parts does nothing, and is ok") {
    const Sync zk = world.open();
    const Multi nothing = zk.multi({});
    CHECK(nothing);
    CHECK(nothing.parts.empty());
}

CONFORMANCE_CASE("2.9 a failed multi takes a zxid, as a failed write does") {
    const Sync zk = world.open();
    const Zxid before = zk.create("/a", "")->stat.czxid;
    CHECK_FALSE(zk.multi({Op::check("/no")}));
    const Zxid after = zk.create("/b", "")->stat.czxid;
    CHECK(after.counter() == before.counter() + 2);
}

CONFORMANCE_CASE("2.9 differs: conditions beside the check of a version, also that none is there") {
    const Sync zk = world.open();
    const Zxid a = zk.create("/a", "1")->stat.czxid;
    CHECK(zk.multi({Op::absent("/b"), Op::has_czxid("/a", a), Op::has_data("/a", "1"),
                    Op::has_children("/a", 0), Op::has_owner("/a", {}), Op::create("/b", "")}));
    CHECK(zk.multi({Op::absent("/b")}).error == Errc::node_exists);
    CHECK(zk.multi({Op::has_data("/none", "")}).error == Errc::no_node);
    const Multi failed = zk.multi({Op::set("/a", "2"), Op::has_data("/a", "1")});
    CHECK(failed.error == Errc::condition_failed);
    CHECK(errors(failed) == std::vector<Errc>{Errc::ok, Errc::condition_failed});
    CHECK(stat_of(zk, "/a").version == 0);
}

CONFORMANCE_CASE("2.9 differs: create_or_set, create_with_parents, remove_all: one write each") {
    const Sync zk = world.open();
    CHECK(zk.create_or_set("/a", "1")->is_new);
    CHECK_FALSE(zk.create_or_set("/a", "2")->is_new);
    CHECK(zk.get("/a")->bytes == "2");
    const auto made = zk.create_with_parents("/b/c/d", "");
    CHECK(path_of(made) == "/b/c/d");
    CHECK(stat_of(zk, "/b").czxid == made->stat.czxid);
    CHECK(zk.create_with_parents("/b/c/d", "").error() == Errc::node_exists);
    Heard heard;
    CHECK(zk.exists("/b", heard.event("b")));
    CHECK(zk.exists("/b/c", heard.event("c")));
    CHECK(zk.remove_all("/b"));
    CHECK(zk.remove_all("/b").error() == Errc::no_node);
    world.settle();
    CHECK(heard.take() == Lines{"c: deleted /b/c", "b: deleted /b"});
}

CONFORMANCE_CASE("2.8 differs: a node of one's earlier session is taken over, with its password") {
    const Sync old = world.open(), young = world.open(), other = world.open();
    const coord::SessionId id = old.session().id();
    const coord::SessionPassword password = old.session().password();
    const Zxid before = old.create("/e", "", CreateMode::ephemeral)->stat.czxid;
    CHECK(young.create("/e", "", CreateMode::ephemeral).error() == Errc::node_exists);
    CHECK(young.take_over("/e", "", id, {}).error() == Errc::auth_failed);
    CHECK(young.take_over("/e", "", other.session().id(), {}).error() == Errc::node_exists);
    const auto taken = young.take_over("/e", "", id, password);
    REQUIRE(taken);
    CHECK(before < taken->stat.czxid);
    CHECK(taken->stat.ephemeral_owner == young.session().id());
    CHECK(old.close());
    CHECK(young.exists("/e"));
}

CONFORMANCE_CASE("2.9 differs: what a node guards is written while that very node is there") {
    const Sync zk = world.open();
    const Sync guarded =
        zk.guarded_by("/lock", zk.create("/lock", "", CreateMode::ephemeral)->stat.czxid);
    CHECK(guarded.create("/a", "1"));
    CHECK(guarded.set("/a", "2", 7).error() == Errc::bad_version);
    CHECK(errors(guarded.multi({Op::set("/a", "2")})) == std::vector<Errc>{Errc::ok});
    REQUIRE(zk.remove("/lock"));
    REQUIRE(zk.create("/lock", ""));
    CHECK(guarded.set("/a", "3").error() == Errc::guard_lost);
    CHECK(guarded.multi({Op::remove("/a")}).error == Errc::guard_lost);
    CHECK(guarded.get("/a")->bytes == "2");
}

CONFORMANCE_CASE("2.9 ephemerals of a multi are the session's; of a failed one nothing is left") {
    const Sync zk = world.open(), other = world.open();
    CHECK_FALSE(zk.multi({Op::create("/e", "", CreateMode::ephemeral), Op::check("/no")}));
    CHECK(zk.create("/e", "mine", CreateMode::ephemeral));
    CHECK_FALSE(zk.multi({Op::remove("/e"), Op::create("/e", ""), Op::check("/no")}));
    CHECK(stat_of(zk, "/e").ephemeral_owner == zk.session().id());
    CHECK(zk.multi({Op::remove("/e"), Op::create("/e", "stays")}));
    CHECK(zk.multi({Op::create("/f", "", CreateMode::ephemeral)}));
    REQUIRE(zk.close());
    REQUIRE(other.sync());
    CHECK(other.get("/e")->bytes == "stays");
    CHECK(other.exists("/f").error() == Errc::no_node);
}

CONFORMANCE_CASE("2.9 watchers hear of a multi part by part, of one zxid; of a failed one, not") {
    const Sync zk = world.open();
    Heard heard;
    REQUIRE(zk.create("/a", ""));
    REQUIRE(zk.add_watch("/", AddWatchMode::persistent_recursive, heard.event("r")));
    REQUIRE(zk.add_watch("/a", AddWatchMode::persistent, heard.event("p")));
    CHECK_FALSE(zk.multi({Op::set("/a", "1"), Op::create("/a/b", ""), Op::check("/no")}));
    world.settle();
    CHECK(heard.take() == Lines{});
    CHECK(zk.multi({Op::set("/a", "1"), Op::create("/a/b", ""), Op::set("/a/b", "2"),
                    Op::remove("/a/b"), Op::create("/c", "")}));
    CHECK(heard.take() == Lines{"p: changed /a", "r: changed /a", "r: created /a/b",
                                "p: children /a", "r: changed /a/b", "r: deleted /a/b",
                                "p: children /a", "r: created /c"});
    for (const Zxid zxid : heard.zxids) CHECK(zxid == stat_of(zk, "/c").czxid);
}

// -- 2.10 Watches --------------------------------------------------------------------------------

// One-shot watchers of all kinds at /p/x and at its parent, and those that stay. Then a change by
// another session.
struct Watched {
    Heard heard;
    explicit Watched(World& world, bool is_there = true) : zk(world.open()), other(world.open()) {
        REQUIRE(other.create("/p", ""));
        if (is_there) REQUIRE(other.create("/p/x", ""));
        if (is_there) REQUIRE(other.create("/p/x/kid", ""));
        REQUIRE(zk.sync());
        (void)zk.exists("/p/x", heard.event("exists"));
        (void)zk.get("/p/x", heard.event("get"));
        (void)zk.children("/p/x", {}, heard.event("list"));
        REQUIRE(zk.children("/p", {}, heard.event("list p")));
    }
    void stay() {
        REQUIRE(zk.remove_watches("/p"));
        (void)zk.remove_watches("/p/x");
        REQUIRE(zk.add_watch("/p/x", AddWatchMode::persistent, heard.event("stay")));
        REQUIRE(zk.add_watch("/p", AddWatchMode::persistent, heard.event("stay p")));
        REQUIRE(zk.add_watch("/p/x", AddWatchMode::persistent_recursive, heard.event("all")));
        REQUIRE(zk.add_watch("/p", AddWatchMode::persistent_recursive, heard.event("all p")));
        heard.take();
    }
    const Sync zk, other;
};

CONFORMANCE_CASE("2.10 create X: created at exists, children at the parent") {
    Watched w(world, false);
    REQUIRE(w.other.create("/p/x", ""));
    world.settle();
    CHECK(w.heard.take() == Lines{"exists: created /p/x", "list p: children /p"});
}

CONFORMANCE_CASE("2.10 set X: changed at exists and get, nothing at children or at the parent") {
    Watched w(world);
    REQUIRE(w.other.set("/p/x", ""));  // the value is the same: it fires
    world.settle();
    CHECK(w.heard.take() == Lines{"exists: changed /p/x", "get: changed /p/x"});
}

CONFORMANCE_CASE("2.10 delete X: deleted at all three, children at the parent after them") {
    Watched w(world);
    REQUIRE(w.zk.remove("/p/x/kid"));
    REQUIRE(w.zk.children("/p/x", {}, w.heard.event("list")));
    w.heard.take();
    REQUIRE(w.other.remove("/p/x"));
    world.settle();
    CHECK(w.heard.take() == Lines{"exists: deleted /p/x", "get: deleted /p/x",
                                  "list: deleted /p/x", "list p: children /p"});
}

CONFORMANCE_CASE("2.10 create or delete a child of X: children at X alone; set of it: nothing") {
    Watched w(world);
    REQUIRE(w.other.set("/p/x/kid", "new"));
    world.settle();
    CHECK(w.heard.take() == Lines{});
    REQUIRE(w.other.create("/p/x/more", ""));
    world.settle();
    CHECK(w.heard.take() == Lines{"list: children /p/x"});
    REQUIRE(w.zk.children("/p/x", {}, w.heard.event("list")));
    REQUIRE(w.other.remove("/p/x/kid"));
    world.settle();
    CHECK(w.heard.take() == Lines{"list: children /p/x"});
}

CONFORMANCE_CASE("2.10 the end of a session fires as a delete of each of its ephemerals") {
    const Sync zk = world.open(), mortal = world.open();
    Heard heard;
    REQUIRE(zk.create("/p", ""));
    REQUIRE(mortal.sync());
    REQUIRE(mortal.create("/p/e", "", CreateMode::ephemeral));
    REQUIRE(zk.sync());
    REQUIRE(zk.exists("/p/e", heard.event("e")));
    REQUIRE(zk.children("/p", {}, heard.event("p")));
    REQUIRE(mortal.close());
    world.settle();
    CHECK(heard.take() == Lines{"e: deleted /p/e", "p: children /p"});
}

CONFORMANCE_CASE("2.10 reads and writes that fail fire nothing") {
    Watched w(world);
    REQUIRE(w.other.get("/p/x"));
    REQUIRE(w.other.children("/p/x"));
    REQUIRE(w.other.sync());
    CHECK_FALSE(w.other.create("/p/x", ""));
    CHECK_FALSE(w.other.set("/p/x", "", 9));
    CHECK_FALSE(w.other.remove("/p/x"));
    world.settle();
    CHECK(w.heard.take() == Lines{});
}

CONFORMANCE_CASE("2.10 a one-shot watcher hears once, and misses what comes before the next read") {
    const Sync zk = world.open();
    Heard heard;
    REQUIRE(zk.create("/a", ""));
    REQUIRE(zk.get("/a", heard.event("w")));
    for (int i = 0; i < 3; i++) REQUIRE(zk.set("/a", std::to_string(i)));
    CHECK(heard.take() == Lines{"w: changed /a"});
    CHECK(zk.get("/a", heard.event("w"))->bytes == "2");  // but never the last state
    REQUIRE(zk.remove("/a"));
    CHECK(heard.take() == Lines{"w: deleted /a"});
}

CONFORMANCE_CASE("2.10 exists watches what is not there; get and children of it watch nothing") {
    const Sync zk = world.open();
    Heard heard;
    CHECK(zk.exists("/a", heard.event("exists")).error() == Errc::no_node);
    CHECK(zk.get("/a", heard.event("get")).error() == Errc::no_node);
    CHECK(zk.children("/a", {}, heard.event("list")).error() == Errc::no_node);
    REQUIRE(zk.create("/a", ""));
    REQUIRE(zk.create("/a/b", ""));
    REQUIRE(zk.set("/a", "x"));
    CHECK(heard.take() == Lines{"exists: created /a"});
}

CONFORMANCE_CASE("2.10 an event comes before the answer that shows its change, and has its zxid") {
    const Sync zk = world.open();
    const Session& s = zk.session();
    Heard heard;
    REQUIRE(zk.create("/a", ""));
    REQUIRE(zk.get("/a", heard.event("w")));
    Zxid zxid;
    s.set("/a", "x", [&](const coord::Result<Stat>& stat) {
        heard.lines.push_back("set");
        zxid = stat->mzxid;
    });
    s.get("/a", heard.answer<coord::Data>("get"));
    world.settle();
    CHECK(heard.take() == Lines{"w: changed /a", "set", "get: ok"});
    CHECK(heard.zxids == std::vector<Zxid>{zxid});
}

CONFORMANCE_CASE("2.10 a watcher is set in its turn among the session's requests") {
    const Sync zk = world.open();
    const Session& s = zk.session();
    Heard heard;
    s.create("/a", "", {});
    s.set("/a", "1", {});
    s.get("/a", heard.event("w"), heard.answer<coord::Data>("get"));
    s.set("/a", "2", heard.answer<Stat>("set"));
    world.settle();
    CHECK(heard.take() == Lines{"get: ok", "w: changed /a", "set: ok"});
}

CONFORMANCE_CASE("2.10 persistent: created, changed, deleted and children of its path, and stays") {
    Watched w(world, false);
    w.stay();
    REQUIRE(w.other.create("/p/x", ""));
    world.settle();
    CHECK(w.heard.take() == Lines{"stay: created /p/x", "all: created /p/x",
                                  "all p: created /p/x", "stay p: children /p"});
    REQUIRE(w.other.set("/p/x", "1"));
    world.settle();
    CHECK(w.heard.take() ==
          Lines{"stay: changed /p/x", "all: changed /p/x", "all p: changed /p/x"});
    REQUIRE(w.other.create("/p/x/y", ""));
    world.settle();
    CHECK(w.heard.take() ==
          Lines{"all: created /p/x/y", "all p: created /p/x/y", "stay: children /p/x"});
    REQUIRE(w.other.remove("/p/x/y"));
    REQUIRE(w.other.remove("/p/x"));
    world.settle();
    CHECK(w.heard.take() == Lines{"all: deleted /p/x/y", "all p: deleted /p/x/y",
                                  "stay: children /p/x", "stay: deleted /p/x", "all: deleted /p/x",
                                  "all p: deleted /p/x", "stay p: children /p"});
}

CONFORMANCE_CASE("2.10 recursive: of what is below, however deep, and of nothing beside") {
    const Sync zk = world.open();
    Heard heard;
    for (const char* const path : {"/a", "/ab", "/a-", "/a/b", "/a/b/c"}) {
        REQUIRE(zk.create(path, ""));
    }
    REQUIRE(zk.add_watch("/a", AddWatchMode::persistent_recursive, heard.event("r")));
    for (const char* const path : {"/", "/ab", "/a-", "/a/b/c"}) REQUIRE(zk.set(path, "x"));
    REQUIRE(zk.create("/a/b/c/d", "", CreateMode::ephemeral));
    CHECK(heard.take() == Lines{"r: changed /a/b/c", "r: created /a/b/c/d"});
}

CONFORMANCE_CASE("2.10 one of each kind on one path: each hears, none takes another's place") {
    const Sync zk = world.open();
    Heard heard;
    REQUIRE(zk.create("/a", ""));
    REQUIRE(zk.add_watch("/a", AddWatchMode::persistent, heard.event("p")));
    REQUIRE(zk.add_watch("/a", AddWatchMode::persistent_recursive, heard.event("r")));
    REQUIRE(zk.get("/a", heard.event("g")));
    REQUIRE(zk.set("/a", "1"));
    REQUIRE(zk.set("/a", "2"));
    CHECK(heard.take() == Lines{"g: changed /a", "p: changed /a", "r: changed /a",
                                "p: changed /a", "r: changed /a"});
}

CONFORMANCE_CASE("2.10 remove_watches: by type, each is told; no_watcher where there is none") {
    const Sync zk = world.open(), other = world.open();
    REQUIRE(zk.create("/a", ""));
    REQUIRE(other.sync());
    Heard heard, theirs;
    REQUIRE(other.add_watch("/a", AddWatchMode::persistent, theirs.event("theirs")));
    const struct {
        WatcherType type;
        const char* told;
    } rows[] = {{WatcherType::children, "list: child removed /a"},
                {WatcherType::data, "get: data removed /a"},
                {WatcherType::persistent, "p: persistent removed /a"},
                {WatcherType::persistent_recursive, "r: persistent removed /a"}};
    for (const auto& row : rows) {
        CHECK(zk.remove_watches("/a", row.type).error() == Errc::no_watcher);
        REQUIRE(zk.get("/a", heard.event("get")));
        REQUIRE(zk.children("/a", {}, heard.event("list")));
        REQUIRE(zk.add_watch("/a", AddWatchMode::persistent, heard.event("p")));
        REQUIRE(zk.add_watch("/a", AddWatchMode::persistent_recursive, heard.event("r")));
        CHECK(zk.remove_watches("/a", row.type));
        CHECK(heard.take() == Lines{row.told});
        CHECK(zk.remove_watches("/a", row.type).error() == Errc::no_watcher);
        CHECK(zk.remove_watches("/a", WatcherType::any));
        CHECK(heard.take().size() == 3);
    }
    REQUIRE(zk.set("/a", "x"));
    world.settle();
    CHECK(heard.take() == Lines{});
    CHECK(theirs.take() == Lines{"theirs: changed /a"});
}

CONFORMANCE_CASE("2.10 add_watch and remove_watches refuse what is no mode and no type") {
    const Sync zk = world.open();
    Heard heard;
    for (const int odd : {-1, 2}) {
        const auto mode = static_cast<AddWatchMode>(odd);
        CHECK(zk.add_watch("/", mode, heard.event("w")).error() == Errc::bad_arguments);
    }
    for (const int odd : {0, 6}) {
        const auto type = static_cast<WatcherType>(odd);
        CHECK(zk.remove_watches("/", type).error() == Errc::bad_arguments);
    }
}

// A session's watchers as of a state, set after that by another session: as if it had moved.
struct Since {
    explicit Since(World& world) : zk(world.open()), other(world.open()) {
        for (const char* path : {"/p", "/p/x", "/p/x/kid", "/p/y"}) {
            REQUIRE(other.create(path, ""));
        }
        at = other.get("/")->zxid;
    }
    void set(const char* path) {
        using coord::Watched;
        REQUIRE(zk.sync());
        CHECK(zk.watch_since(at, Watched::data, path, heard.event("data")));
        CHECK(zk.watch_since(at, Watched::absence, path, heard.event("exist")));
        CHECK(zk.watch_since(at, Watched::children, path, heard.event("child")));
        CHECK(zk.watch_since(at, Watched::persistent, path, heard.event("stay")));
    }
    Heard heard;
    Zxid at;
    const Sync zk, other;
};

CONFORMANCE_CASE("2.10 setWatches: what has not changed since tells nothing, and is watched") {
    Since s(world);
    REQUIRE(s.other.set("/p/y", "beside"));
    s.set("/p/x");
    CHECK(s.heard.take() == Lines{"exist: created /p/x"});  // it is there: so it has come
    REQUIRE(s.other.set("/p/x", "1"));
    world.settle();
    CHECK(s.heard.take() == Lines{"data: changed /p/x", "stay: changed /p/x"});
    REQUIRE(s.other.create("/p/x/new", ""));
    world.settle();
    CHECK(s.heard.take() == Lines{"child: children /p/x", "stay: children /p/x"});
    REQUIRE(s.other.set("/p/x", "2"));
    world.settle();
    CHECK(s.heard.take() == Lines{"stay: changed /p/x"});
}

CONFORMANCE_CASE("2.10 setWatches: a node set since fires changed, and with its zxid") {
    Since s(world);
    const auto set = s.other.set("/p/x", "1");
    REQUIRE(set);
    s.set("/p/x");
    CHECK(s.heard.take() ==
          Lines{"data: changed /p/x", "exist: created /p/x", "stay: changed /p/x"});
    REQUIRE(s.heard.zxids.size() == 3);
    CHECK(s.heard.zxids[0] == set->mzxid);
    CHECK(s.heard.zxids[2] == set->mzxid);
    REQUIRE(s.other.set("/p/x", "2"));
    world.settle();
    CHECK(s.heard.take() == Lines{"stay: changed /p/x"});  // the others have been told
}

CONFORMANCE_CASE("2.10 setWatches: children changed since fire children; both, in their order") {
    Since s(world);
    const auto kid = s.other.create("/p/x/more", "");
    REQUIRE(kid);
    REQUIRE(s.other.set("/p/x", "1"));
    s.set("/p/x");
    CHECK(s.heard.take() == Lines{"data: changed /p/x", "exist: created /p/x",
                                  "child: children /p/x", "stay: children /p/x",
                                  "stay: changed /p/x"});
    REQUIRE(s.heard.zxids.size() == 5);
    CHECK(s.heard.zxids[2] == kid->stat.czxid);
    CHECK(s.heard.zxids[3] == kid->stat.czxid);
}

CONFORMANCE_CASE("2.10 setWatches: a node that is gone fires deleted, at data and child") {
    Since s(world);
    REQUIRE(s.other.remove("/p/y"));
    s.set("/p/y");
    CHECK(s.heard.take() ==
          Lines{"data: deleted /p/y", "child: deleted /p/y", "stay: deleted /p/y"});
    REQUIRE(s.other.create("/p/y", ""));
    world.settle();
    CHECK(s.heard.take() == Lines{"exist: created /p/y", "stay: created /p/y"});
}

CONFORMANCE_CASE("2.10 setWatches: a node made anew fires changed, and children") {
    Since s(world);
    REQUIRE(s.other.remove("/p/y"));
    REQUIRE(s.other.create("/p/y", ""));
    s.set("/p/y");
    CHECK(s.heard.take() == Lines{"data: changed /p/y", "exist: created /p/y",
                                  "child: children /p/y", "stay: created /p/y"});
}

CONFORMANCE_CASE("2.10 setWatches differs: one that stays hears of what it has missed") {
    Since s(world);
    using coord::Watched;
    CHECK(s.zk.watch_since(s.at, Watched::persistent, "/p/none", s.heard.event("none")));
    CHECK(s.zk.watch_since(s.at, Watched::absence, "/p/none", s.heard.event("exist")));
    CHECK(s.heard.take().empty());  // it is not there, and neither was it then
    REQUIRE(s.other.create("/p/none", ""));
    REQUIRE(s.other.create("/p/none/kid", ""));
    REQUIRE(s.zk.sync());
    s.heard.take();
    CHECK(s.zk.watch_since(s.at, Watched::persistent, "/p/none", s.heard.event("late")));
    CHECK(s.heard.take() == Lines{"late: created /p/none", "late: children /p/none"});
}

CONFORMANCE_CASE("2.10 setWatches differs: it waits for the state that it names") {
    Since s(world);
    const auto ahead = s.other.set("/p/x", "1");
    REQUIRE(ahead);
    const Zxid seen = ahead->mzxid;
    CHECK(s.zk.watch_since(seen, coord::Watched::data, "/p/x", s.heard.event("data")));
    CHECK(s.heard.take().empty());  // and never of a change that was seen
    REQUIRE(s.other.set("/p/x", "2"));
    world.settle();
    CHECK(s.heard.take() == Lines{"data: changed /p/x"});
    CHECK(s.zk.watch_since(seen, coord::Watched::data, "/p/x", {}).error() ==
          Errc::bad_arguments);
    const auto five = static_cast<coord::Watched>(5);
    CHECK(s.zk.watch_since(seen, five, "/p/x", s.heard.event("no")).error() ==
          Errc::bad_arguments);
    CHECK(s.zk.watch_since(coord::newest, coord::Watched::data, "/p/x", s.heard.event("no"))
              .error() == Errc::bad_arguments);
    CHECK(s.zk.watch_since(seen, coord::Watched::data, "p", s.heard.event("no")).error() ==
          Errc::bad_arguments);
}

CONFORMANCE_CASE("2.10 the watchers of a session go with it, uncalled") {
    const Sync zk = world.open(), other = world.open();
    Heard heard;
    REQUIRE(zk.create("/a", ""));
    REQUIRE(zk.get("/a", heard.event("w")));
    REQUIRE(zk.add_watch("/", AddWatchMode::persistent_recursive, heard.event("r")));
    REQUIRE(zk.close());
    REQUIRE(other.sync());
    REQUIRE(other.set("/a", "x"));
    world.settle();
    CHECK(heard.take() == Lines{});
}

// -- 2.11 Zxids ----------------------------------------------------------------------------------

CONFORMANCE_CASE("2.11 each write takes the next zxid, one that fails too; reads take none") {
    const Sync zk = world.open();
    const Zxid first = zk.create("/a", "")->stat.czxid;
    CHECK(zk.set("/a", "")->mzxid.counter() == first.counter() + 1);
    CHECK_FALSE(zk.create("/a", ""));
    CHECK_FALSE(zk.set("/a", "", 99));
    CHECK_FALSE(zk.remove("/no"));
    REQUIRE(zk.get("/a"));
    REQUIRE(zk.exists("/a"));
    REQUIRE(zk.children("/a"));
    CHECK_FALSE(zk.get("/no"));
    CHECK_FALSE(zk.create("no path", ""));  // refused before it is numbered
    CHECK(zk.set("/a", "")->mzxid.counter() == first.counter() + 5);
    CHECK(zk.set("/a", "")->mzxid.epoch() == first.epoch());
}

CONFORMANCE_CASE("2.11 a read names the zxid of the state that it saw, and that never falls") {
    const Sync zk = world.open(), other = world.open();
    Zxid last;
    for (int i = 0; i < 5; i++) {
        const auto set = other.set("/", std::to_string(i));
        REQUIRE(set);
        REQUIRE(zk.sync());
        const auto got = zk.get("/");
        CHECK(got->zxid >= set->mzxid);
        CHECK(got->zxid >= last);
        CHECK(zk.children("/")->zxid >= got->zxid);
        last = got->zxid;
    }
}

// -- 2.12 Sessions -------------------------------------------------------------------------------

CONFORMANCE_CASE("2.12 sessions differ, and one has a timeout that it knows") {
    const Sync one = world.open(), two = world.open();
    CHECK(one.session().id() != two.session().id());
    CHECK(one.session().timeout() > coord::Duration{});
    CHECK(one.session().state() == coord::SessionState::connected);
}

CONFORMANCE_CASE("2.12 close comes after what was asked before it; what comes after has expired") {
    const Sync zk = world.open(), other = world.open();
    const Session& s = zk.session();
    Heard heard;
    s.create("/a", "", heard.answer<coord::Created>("create"));
    s.get("/a", heard.answer<coord::Data>("get"));
    s.close(heard.answer<void>("close"));
    world.settle();
    CHECK(heard.take() == Lines{"create: ok", "get: ok", "close: ok"});
    CHECK(s.state() == coord::SessionState::expired);
    CHECK(zk.create("/b", "").error() == Errc::session_expired);
    CHECK(zk.set("/a", "").error() == Errc::session_expired);
    CHECK(zk.multi({Op::check("/a")}).error == Errc::session_expired);
    CHECK(zk.get("/a").error() == Errc::session_expired);
    CHECK(zk.add_watch("/a", AddWatchMode::persistent, heard.event("w")).error() ==
          Errc::session_expired);
    CHECK(zk.close().error() == Errc::session_expired);
    REQUIRE(other.sync());
    CHECK(other.exists("/a"));
    CHECK(other.exists("/b").error() == Errc::no_node);
}

// -- 2.13 Consistency ----------------------------------------------------------------------------

CONFORMANCE_CASE("2.13 a session sees its own writes, in the order in which it asked") {
    const Sync zk = world.open();
    const Session& s = zk.session();
    std::vector<Bytes> seen;
    const auto see = [&](const coord::Result<coord::Data>& data) {
        seen.push_back(data ? data->bytes : Bytes(coord::name(data.error())));
    };
    s.get("/a", see);
    s.create("/a", "1", {});
    s.get("/a", see);
    s.set("/a", "2", {});
    s.get("/a", see);
    s.remove("/a", {});
    s.get("/a", see);
    world.settle();
    CHECK(seen == std::vector<Bytes>{"no_node", "1", "2", "no_node"});
}

CONFORMANCE_CASE("2.13 differs: after sync a read sees all that was answered anywhere before it") {
    const Sync one = world.open(), two = world.open(), three = world.open();
    for (int i = 0; i < 5; i++) {
        const Bytes value = std::to_string(i);
        REQUIRE(one.set("/", value));
        REQUIRE(two.sync());
        CHECK(two.get("/")->bytes == value);
        REQUIRE(three.sync());
        CHECK(three.get("/")->bytes == value);
    }
}

// -- 2.14 Limits ---------------------------------------------------------------------------------

CONFORMANCE_CASE("2.14 differs: a value that is too large is an error, and the session lives on") {
    const Sync zk = world.open();
    const Bytes large(2 * 1024 * 1024, 'x');
    REQUIRE(zk.create("/a", ""));
    CHECK(zk.create("/b", large).error() == Errc::too_large);
    CHECK(zk.set("/a", large).error() == Errc::too_large);
    CHECK(zk.multi({Op::set("/a", large)}).error == Errc::too_large);
    CHECK(zk.create("/" + Bytes(5000, 'n'), "").error() == Errc::too_large);
    CHECK(zk.set("/a", "small"));
    CHECK(zk.session().state() == coord::SessionState::connected);
}

CONFORMANCE_CASE("2.14 differs: children come in the order of their bytes, and in pages") {
    const Sync zk = world.open();
    for (const char* const path : {"/p", "/p/b", "/p/a", "/p/c", "/p/a-", "/p/B"}) {
        REQUIRE(zk.create(path, ""));
    }
    CHECK(zk.children("/p")->names == std::vector<Bytes>{"B", "a", "a-", "b", "c"});
    const auto page = zk.children("/p", {"a", 2});
    CHECK(page->names == std::vector<Bytes>{"a-", "b"});
    CHECK(page->more);
    CHECK_FALSE(zk.children("/p", {"b", 2})->more);
}

// -- 1.4, 2.3 Who may do what: each answer here is one that a ZooKeeper 3.8 has given -------------

inline Bytes shown(const coord::Result<coord::NodeAcl>& acl) {
    if (!acl) return coord::name(acl.error());
    Bytes text;
    for (std::size_t i = 0; i < acl->acl.size(); i++) {
        const Acl::Entry entry = acl->acl[i];
        text += (i > 0 ? ", " : "") + std::to_string(entry.permissions) + " " +
                Bytes(entry.scheme) + ":" + Bytes(entry.id);
    }
    return text;
}

// A node that is its maker's alone, who is "u".
inline Sync make_private(World& world, BytesView path, BytesView bytes = "d") {
    const Sync owner = world.open();
    REQUIRE(owner.add_auth("digest", "u:p"));
    REQUIRE(owner.create(path, bytes, CreateMode::persistent, {}, coord::creator_acl()));
    return owner;
}

CONFORMANCE_CASE("1.4 what a node is open to, and who has been kept in it by auth") {
    const Sync zk = world.open();
    CHECK(shown(zk.get_acl("/")) == "31 world:anyone");
    CHECK(shown(zk.get_acl("/zookeeper")) == "31 world:anyone");
    CHECK(shown(zk.get_acl("/zookeeper/quota")) == "31 world:anyone");
    CHECK(shown(zk.get_acl("/zookeeper/config")) == "1 world:anyone");
    CHECK(stat_of(zk, "/zookeeper/config").aversion == -1);
    CHECK(zk.set("/zookeeper/config", "").error() == Errc::no_auth);
    CHECK(zk.create("/zookeeper/config/x", "").error() == Errc::no_auth);
    CHECK(zk.set_acl("/zookeeper/config", coord::open_acl()).error() == Errc::no_auth);
    CHECK(zk.create("/x", "", CreateMode::persistent, {}, coord::creator_acl()).error() ==
          Errc::invalid_acl);
    const Acl twice = coord::open_acl().add(31, "world", "anyone");
    REQUIRE(zk.create("/twice", "", CreateMode::persistent, {}, twice));
    CHECK(shown(zk.get_acl("/twice")) == "31 world:anyone");
    const Sync owner = make_private(world, "/mine");
    CHECK(shown(owner.get_acl("/mine")) == "31 digest:u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=");
    CHECK(shown(zk.get_acl("/none")) == "no_node");
}

CONFORMANCE_CASE("2.3 no_auth comes after the path and no_node, and before all else") {
    const Sync owner = make_private(world, "/p"), other = world.open();
    REQUIRE(owner.create("/p/k", ""));
    REQUIRE(other.sync());
    CHECK(other.get("/p").error() == Errc::no_auth);
    CHECK(other.children("/p").error() == Errc::no_auth);
    CHECK(shown(other.get_acl("/p")) == "no_auth");
    CHECK(other.exists("/p"));  // asks for nothing
    CHECK(other.set("/p", "", 7).error() == Errc::no_auth);
    CHECK(other.set("/none", "", 7).error() == Errc::no_node);
    CHECK(other.create("/p/k", "").error() == Errc::no_auth);
    CHECK(other.create("/none/k", "").error() == Errc::no_node);
    CHECK(other.remove("/p/k").error() == Errc::no_auth);
    CHECK(other.remove("/p/none").error() == Errc::no_auth);
    CHECK(other.set_acl("/p", coord::open_acl(), 7).error() == Errc::no_auth);
    CHECK(other.set_acl("/p", Acl(31, "foo", "bar")).error() == Errc::invalid_acl);
    CHECK(other.set_acl("/none", Acl(31, "foo", "bar")).error() == Errc::invalid_acl);
    CHECK(other.set_acl("/none", coord::open_acl()).error() == Errc::no_node);
    CHECK(errors(other.multi({Op::check("/p", 7)})) == std::vector<Errc>{Errc::no_auth});
    CHECK(owner.set("/p", "", 7).error() == Errc::bad_version);
    CHECK(owner.set_acl("/p", coord::open_acl(), 7).error() == Errc::bad_version);
    REQUIRE(owner.remove("/p/k"));
    CHECK(other.remove("/p"));  // its parent is asked, which is open
}

CONFORMANCE_CASE("1.4 get_acl wants read or admin, and shows digests to admin alone") {
    const Sync owner = make_private(world, "/p"), other = world.open();
    const Bytes id = coord::digest_id("u:p");
    const auto with = [&](std::uint32_t permissions) {
        return Acl(permissions, "world", "anyone").add(31, "digest", id).add(31, "ip", "1.2.3.4");
    };
    REQUIRE(owner.create("/r", "", CreateMode::persistent, {}, with(coord::permission::read)));
    REQUIRE(owner.create("/a", "", CreateMode::persistent, {}, with(coord::permission::admin)));
    REQUIRE(owner.create("/w", "", CreateMode::persistent, {}, with(coord::permission::write)));
    REQUIRE(other.sync());
    CHECK(shown(other.get_acl("/r")) == "1 world:anyone, 31 digest:u:x, 31 ip:1.2.3.4");
    CHECK(shown(other.get_acl("/a")) ==
          "16 world:anyone, 31 digest:" + id + ", 31 ip:1.2.3.4");
    CHECK(other.get("/a").error() == Errc::no_auth);
    CHECK(shown(other.get_acl("/w")) == "no_auth");
    CHECK(other.set("/w", "1"));
}

CONFORMANCE_CASE("2.5 set_acl moves the aversion, and nothing else of the Stat") {
    const Sync owner = make_private(world, "/p");
    const Stat before = stat_of(owner, "/p");
    CHECK(before.aversion == 0);
    const auto set = owner.set_acl("/p", coord::open_acl(), 0);
    REQUIRE(set);
    CHECK(set->aversion == 1);
    CHECK(set->version == before.version);
    CHECK(set->mzxid == before.mzxid);
    CHECK(set->mtime_ms == before.mtime_ms);
    CHECK(set->pzxid == before.pzxid);
    CHECK(owner.set_acl("/p", coord::open_acl(), 0).error() == Errc::bad_version);
    CHECK(owner.set_acl("/p", coord::open_acl(), 1)->aversion == 2);
}

CONFORMANCE_CASE("2.10 an event comes to who may read the node, when it changes") {
    const Sync owner = make_private(world, "/p"), other = world.open();
    Heard heard;
    REQUIRE(other.sync());
    CHECK(other.exists("/p", heard.event("changed")));
    CHECK(other.exists("/p/new", heard.event("new")).error() == Errc::no_node);
    CHECK(other.children("/", {}, heard.event("root")));
    REQUIRE(owner.set("/p", "e"));
    REQUIRE(owner.create("/p/new", "", CreateMode::persistent, {}, coord::creator_acl()));
    REQUIRE(owner.create("/q", "", CreateMode::persistent, {}, coord::creator_acl()));
    world.settle();
    CHECK(heard.take() == Lines{"root: children /"});
    REQUIRE(other.add_auth("digest", "u:p"));
    CHECK(other.get("/p", heard.event("changed")));
    REQUIRE(owner.set("/p", "f"));
    world.settle();
    CHECK(heard.take() == Lines{"changed: changed /p"});
}

CONFORMANCE_CASE("1.4 differs: a credential that nobody takes does not end the session") {
    const Sync zk = world.open();
    CHECK(zk.add_auth("foo", "x").error() == Errc::auth_failed);
    CHECK(zk.session().state() == coord::SessionState::connected);
    CHECK(zk.exists("/"));
}

CONFORMANCE_CASE("1.4 differs: set_acl is a part of a multi") {
    const Sync zk = world.open();
    CHECK(zk.multi({Op::create("/a", ""), Op::set_acl("/a", coord::read_only_acl(), 0)}));
    CHECK(zk.set("/a", "").error() == Errc::no_auth);
    CHECK(shown(zk.get_acl("/a")) == "1 world:anyone");
}

// -- 1.5 Quotas -----------------------------------------------------------------------------------
// Of a ZooKeeper that enforces them.

// As setquota of its command line does.
inline void set_quota(const Sync& zk, const Bytes& path, const Bytes& limits) {
    Bytes top = "/zookeeper/quota";
    for (const char name : path) {
        if (name == '/' && top != "/zookeeper/quota") (void)zk.create(top, "");
        top += name;
    }
    REQUIRE(zk.create(top, ""));
    REQUIRE(zk.create(top + "/zookeeper_limits", limits));
    REQUIRE(zk.create(top + "/zookeeper_stats", "count=0,bytes=0"));
}

CONFORMANCE_CASE("1.5 stats: what is there, the path itself too; their Stat is not changed by it") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/q", "12"));
    REQUIRE(zk.create("/q/a", "345"));
    set_quota(zk, "/q", "count=-1,bytes=-1");
    const Bytes stats = "/zookeeper/quota/q/zookeeper_stats";
    CHECK(zk.get(stats)->bytes == "count=2,bytes=5");
    const Stat before = stat_of(zk, stats);
    CHECK(before.version == 0);
    CHECK(before.czxid == before.mzxid);
    Heard heard;
    CHECK(zk.get(stats, heard.event("stats")));
    REQUIRE(zk.create("/q/b", "6"));
    REQUIRE(zk.set("/q/a", ""));
    REQUIRE(zk.create("/qb", "beside"));
    CHECK(zk.get(stats)->bytes == "count=3,bytes=3");
    REQUIRE(zk.remove("/q/a"));
    CHECK(zk.get(stats)->bytes == "count=2,bytes=3");
    world.settle();
    CHECK(heard.lines.empty());
    const Stat after = stat_of(zk, stats);
    CHECK(after.version == 0);
    CHECK(after.mzxid == before.mzxid);
    CHECK(after.mtime_ms == before.mtime_ms);
    CHECK(after.pzxid == before.pzxid);
    CHECK(stat_of(zk, "/zookeeper/quota/q").pzxid == before.czxid);
}

CONFORMANCE_CASE("1.5 2.3 a hard limit: create last of all, set before the version") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/q", "12"));
    REQUIRE(zk.create("/q/a", "345"));
    REQUIRE(zk.create("/q/e", "", CreateMode::ephemeral));
    set_quota(zk, "/q", "count=-1,bytes=-1=;byteHardLimit=8;countHardLimit=4");
    CHECK(zk.create("/q/b", "6789").error() == Errc::quota_exceeded);
    CHECK(zk.create("/q/b", "678"));
    CHECK(zk.create("/q/c", "").error() == Errc::quota_exceeded);
    CHECK(zk.create("/q/a", "").error() == Errc::node_exists);
    CHECK(zk.create("/q/no/c", "").error() == Errc::no_node);
    CHECK(zk.create("/q/e/c", "").error() == Errc::no_children_for_ephemerals);
    CHECK(zk.set("/q/no", "0123456789").error() == Errc::no_node);
    CHECK(zk.set("/q/a", "3456", 77).error() == Errc::quota_exceeded);
    CHECK(zk.set("/q/a", "34", 77).error() == Errc::bad_version);
    CHECK(zk.set("/q/a", "34"));
    // Over a limit that was lowered: what makes it less is refused, what leaves it as it is is not.
    CHECK(zk.set("/zookeeper/quota/q/zookeeper_limits", "byteHardLimit=1"));
    CHECK(zk.set("/q/a", "3").error() == Errc::quota_exceeded);
    CHECK(zk.set("/q/a", "43"));
    CHECK(zk.create("/q/c", ""));
    CHECK(zk.remove("/q/a"));
    CHECK(zk.remove("/zookeeper/quota/q/zookeeper_limits"));
    CHECK(zk.create("/q/a", "anything"));
}

CONFORMANCE_CASE("1.5 a soft limit refuses nothing, and the deepest quota counts alone") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/q", ""));
    set_quota(zk, "/q", "count=1,bytes=1");
    CHECK(zk.create("/q/a", "345"));
    CHECK(zk.create("/q/a/b", "6"));
    set_quota(zk, "/q/a", "countHardLimit=3");
    CHECK(zk.create("/q/a/c", ""));
    CHECK(zk.create("/q/a/d", "").error() == Errc::quota_exceeded);
    CHECK(zk.create("/q/d", ""));
    CHECK(zk.get("/zookeeper/quota/q/a/zookeeper_stats")->bytes == "count=3,bytes=4");
}

CONFORMANCE_CASE("1.5 differs: the parts of a multi see what those before them have counted") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/q", ""));
    set_quota(zk, "/q", "countHardLimit=2");
    const Multi two = zk.multi({Op::create("/q/a", ""), Op::create("/q/b", "")});
    CHECK(two.error == Errc::quota_exceeded);
    CHECK(errors(two) == std::vector<Errc>{Errc::ok, Errc::quota_exceeded});
    CHECK_FALSE(zk.exists("/q/a"));
    CHECK(zk.multi({Op::create("/q/a", ""), Op::remove("/q/a"), Op::create("/q/b", "")}));
    CHECK(zk.get("/zookeeper/quota/q/zookeeper_stats")->bytes == "count=2,bytes=0");
}

CONFORMANCE_CASE("1.5 differs: a text that is no quota is none, and stats are put right at once") {
    const Sync zk = world.open();
    REQUIRE(zk.create("/q", ""));
    set_quota(zk, "/q", "countHardLimit=");
    CHECK(zk.create("/q/a", ""));
    CHECK(zk.set("/zookeeper/quota/q/zookeeper_limits", "countHardLimit=2"));
    CHECK(zk.set("/zookeeper/quota/q/zookeeper_stats", "count=?"));
    CHECK(zk.get("/zookeeper/quota/q/zookeeper_stats")->bytes == "count=2,bytes=0");
    CHECK(zk.create("/q/b", "").error() == Errc::quota_exceeded);
}

}  // TEST_SUITE

// Rows of those sections that are no case here, and why:
//
//   1.4   super, addresses, own schemes    ask for options: 13_acl.cpp
//   2.2   null paths                       a path is bytes that are there
//   2.2   what a server checks alone       the session judges each path before it is sent
//   2.4   a number over 2147483647         needs so many creates; chapter 3's tests make one
//   2.5   a version that would be -1       needs 2^32 sets; chapter 3's tests
//   2.5   reconfig that is let             asks for an option: 13_reconfig.cpp
//   2.8   when containers and ttls go      by the leader, in time: chapters 3, 4 and 10
//   2.10  setWatches of recursive ones     what they miss a change stream tells: 13_streams.cpp
//   2.10  removal while disconnected       watchers are local: each removal is
//   2.12  expiry, its timing, moving       by the simulations: an expiry needs faults
//   2.12  passwords, attaching elsewhere   asks for a replica: 13_attach.cpp
//   2.12  local sessions                   ask for options: 13_local.cpp; and some worlds have no
//                                          others. All writes upgrade them, not ephemerals alone
//   2.12  how writes end with a session    needs faults: 13_ends.cpp
//   wchs, wchc, wchp, dump                 ask a replica: 13_ends.cpp
//   2.14  outstanding requests at the most a bound of each back end's own

#undef CONFORMANCE_CASE
#undef CONFORMANCE_JOIN
#undef CONFORMANCE_JOIN_

}  // namespace conformance
