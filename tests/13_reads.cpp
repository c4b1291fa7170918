// Chapters 12 and 13: what a client reads beside one node: several at one moment, pages with data,
// its ephemeral nodes, how many are below; reads of a state that is new enough; handles below a
// path. Standalone replicas in virtual time first; then three voters in a simulation.

#include <doctest/doctest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "session_rig.hpp"
#include "support.hpp"

namespace {

using coord::Bytes;
using coord::BytesView;
using coord::CreateMode;
using coord::Errc;
using coord::Found;
using coord::milliseconds;
using coord::Op;
using coord::Page;
using coord::Query;
using coord::seconds;
using coord::Session;
using coord::SessionState;
using coord::Sync;
using coord::Time;
using coord::WatchEvent;
using coord::Zxid;
using session_rig::Ensemble;
using Names = std::vector<Bytes>;

struct Alone : session_rig::Alone {
    explicit Alone(const coord::ReplicaOptions& options = {}) : session_rig::Alone(options) {
        patience = 5000;  // a read may wait for what never comes
    }
};

Zxid made(const coord::Result<coord::Created>& created) {
    REQUIRE(created);
    return created->stat.czxid;
}

// What a test hears, in order: "get ok 7" and the like.
struct Diary {
    std::vector<std::string> lines;

    coord::OnData data(const std::string& what) {
        return [this, what](const coord::Result<coord::Data>& got) {
            lines.push_back(what + " " + (got ? got->bytes : Bytes(coord::name(got.error()))));
        };
    }
    template <class T>
    std::function<void(coord::Result<T>)> answer(const std::string& what) {
        return [this, what](const coord::Result<T>& result) {
            lines.push_back(what + " " + coord::name(result.error()));
        };
    }
    coord::Watcher event() {
        return [this](const WatchEvent& event) {
            lines.push_back(std::to_string(static_cast<int>(event.type)) + " " + event.path);
        };
    }
    std::string take() {
        std::string all;
        for (const std::string& line : lines) all += (all.empty() ? "" : ", ") + line;
        lines.clear();
        return all;
    }
};

void fill(const Sync& zk, const Names& paths, BytesView data = "") {
    for (const Bytes& path : paths) REQUIRE(zk.create(path, Bytes(data) + path));
}

Names names_of(const std::vector<coord::Child>& nodes) {
    Names names;
    for (const coord::Child& each : nodes) names.push_back(each.name);
    return names;
}

}  // namespace

TEST_SUITE_BEGIN("13 reads");

// ---- Several at one moment

TEST_CASE("multi_read: each part has its own answer or error, and all have one zxid") {
    Alone alone;
    Sync zk = alone.open();
    fill(zk, {"/a", "/a/x", "/a/y", "/b"}, "at ");
    REQUIRE(zk.set("/a", "new"));
    const auto read = zk.multi_read(
        {Query::get("/a"), Query::get("/none"), Query::exists("/a/x"), Query::children("/a"),
         Query::get("a"), Query::list("/a"), Query::descendants("/a"), Query::descendants("/none"),
         Query::exists(""), Query::children("/none"), Query::list("/none"), Query::get("/b")});
    REQUIRE(read);
    const std::vector<Found>& parts = read->parts;
    REQUIRE(parts.size() == 12);
    for (const Found& part : parts) CHECK((part.error != Errc::ok || part.zxid == read->zxid));
    CHECK(read->zxid == alone.replica.machine().applied());
    CHECK(parts[0].bytes == "new");
    CHECK(parts[0].stat.version == 1);
    CHECK(parts[1].error == Errc::no_node);
    CHECK(parts[2].stat.data_length == 7);
    CHECK(parts[2].bytes.empty());
    CHECK(parts[3].names == Names{"x", "y"});
    CHECK(parts[3].stat.num_children == 2);
    CHECK(parts[4].error == Errc::bad_arguments);
    CHECK(names_of(parts[5].nodes) == Names{"x", "y"});
    CHECK(parts[5].nodes[1].bytes == "at /a/y");
    CHECK(parts[5].nodes[1].stat.data_length == 7);
    CHECK(parts[5].stat.version == 1);
    CHECK(parts[6].count == 2);
    CHECK(parts[7].error == Errc::no_node);
    CHECK(parts[8].error == Errc::bad_arguments);
    CHECK(parts[9].error == Errc::no_node);
    CHECK(parts[10].error == Errc::no_node);
    CHECK(parts[11].bytes == "at /b");
    const auto nothing = zk.multi_read({});
    REQUIRE(nothing);
    CHECK(nothing->parts.empty());
    CHECK(nothing->zxid == read->zxid);
}

TEST_CASE("multi_read: in its turn, with what was written before it and nothing after") {
    Alone alone;
    Sync zk = alone.open();
    fill(zk, {"/a", "/b"});
    for (int i = 0; i < 50; i++) {
        const Bytes value = std::to_string(i);
        zk.session().multi({Op::set("/a", value), Op::set("/b", value)}, {});
        zk.session().multi_read({Query::get("/a"), Query::get("/b")},
                                [value](const coord::Result<coord::MultiRead>& read) {
                                    REQUIRE(read);
                                    CHECK(read->parts[0].bytes == value);
                                    CHECK(read->parts[1].bytes == value);
                                    CHECK(read->parts[0].stat.mzxid == read->zxid);
                                });
    }
    REQUIRE(zk.sync());
    CHECK(zk.get("/a")->bytes == "49");
}

TEST_CASE("multi_read: bounds are of the whole answer; a part without room is too_large") {
    coord::ReplicaOptions options;
    options.limits.list_max = 4;
    options.limits.multi_parts_max = 5;
    options.limits.path_bytes_max = 20;
    options.limits.data_bytes_max = 80;
    options.limits.answer_bytes_max = 100;
    Alone alone(options);
    Sync zk = alone.open();
    fill(zk, {"/a", "/a/1", "/a/2", "/a/3"});
    REQUIRE(zk.create("/big", Bytes(80, 'x')));
    REQUIRE(zk.create("/a/4", Bytes(80, 'y')));
    const auto many =
        zk.multi_read({Query::children("/a", {"", 3}), Query::children("/a"),
                       Query::children("/a"), Query::children("/a", {"", 0}), Query::exists("/a")});
    REQUIRE(many);
    CHECK(many->parts[0].names == Names{"1", "2", "3"});
    CHECK(many->parts[0].more);
    CHECK(many->parts[1].names == Names{"1"});
    CHECK(many->parts[1].more);
    CHECK(many->parts[2].error == Errc::too_large);
    CHECK(many->parts[3].error == Errc::ok);
    CHECK(many->parts[4].error == Errc::ok);
    const auto big = zk.multi_read({Query::get("/big"), Query::get("/a/4"), Query::get("/a/1"),
                                    Query::list("/a", {"3", 9}), Query::list("/a", {"2", 9})});
    REQUIRE(big);
    CHECK(big->parts[0].bytes.size() == 80);
    CHECK(big->parts[1].error == Errc::too_large);
    CHECK(big->parts[1].bytes.empty());
    CHECK(big->parts[2].bytes == "/a/1");
    CHECK(big->parts[3].error == Errc::too_large);
    CHECK(names_of(big->parts[4].nodes) == Names{"3"});
    CHECK(big->parts[4].more);
    const auto alone_it_has_room = zk.read(Query::list("/a", {"3", 9}));
    CHECK(alone_it_has_room->nodes[0].bytes.size() == 80);
    const auto counted = zk.multi_read({Query::descendants("/a"), Query::descendants("/"),
                                        Query::descendants("/zookeeper")});
    REQUIRE(counted);
    CHECK(counted->parts[0].count == 4);
    CHECK(counted->parts[1].count == alone.replica.tree().size() - 1);
    CHECK(counted->parts[2].error == Errc::too_large);
    CHECK(zk.multi_read(std::vector<Query>(6, Query::get("/a"))).error() == Errc::too_many);
    CHECK(zk.multi_read(std::vector<Query>(5, Query::get("/a"))));
}

TEST_CASE("read: one query, whose error is the answer's") {
    coord::ReplicaOptions options;
    options.limits.path_bytes_max = 20;
    options.limits.list_max = 3;
    Alone alone(options);
    Sync zk = alone.open();
    fill(zk, {"/a", "/a/1", "/a/2"}, "at ");
    const auto got = zk.read(Query::get("/a"));
    REQUIRE(got);
    CHECK(got->bytes == "at /a");
    CHECK(got->zxid == alone.replica.machine().applied());
    CHECK(got->stat.num_children == 2);
    CHECK(zk.read(Query::get("/none")).error() == Errc::no_node);
    CHECK(zk.read(Query::get("none")).error() == Errc::bad_arguments);
    CHECK(zk.read(Query::get("/a/")).error() == Errc::bad_arguments);
    CHECK(zk.read(Query::get("/" + Bytes(20, 'x'))).error() == Errc::too_large);
    CHECK(zk.read(Query::list("/a", {Bytes(21, 'x'), 1})).error() == Errc::too_large);
    CHECK(zk.read(Query::list("/a", {"", 1, Bytes(21, 'x')})).error() == Errc::too_large);
    CHECK(zk.children("/a", {"", 1, Bytes(21, 'x')}).error() == Errc::too_large);
    CHECK(zk.read({static_cast<Query::Kind>(8), "/a", {}}).error() == Errc::bad_arguments);
    CHECK(zk.read(Query::descendants("/a"))->count == 2);
    fill(zk, {"/a/1/x", "/a/1/y"});
    CHECK(zk.read(Query::descendants("/a")).error() == Errc::too_large);
    CHECK(zk.read(Query::descendants("/a/1"))->count == 2);
    Query path_of_another_life = Query::get("/a");
    {
        const Bytes path = "/a/1";
        path_of_another_life.path = path;
        zk.session().read(path_of_another_life, [](const coord::Result<Found>& found) {
            REQUIRE(found);
            CHECK(found->bytes == "at /a/1");
        });
    }
    alone.polls();
    zk.session().read(Query::get("/a"), {});
    zk.session().multi_read({Query::get("/a")}, {});
    alone.polls();
    REQUIRE(zk.close());
    CHECK(zk.read(Query::get("/a")).error() == Errc::session_expired);
    CHECK(zk.multi_read({Query::get("/a")}).error() == Errc::session_expired);
}

TEST_CASE("read: an answer has nothing of what was found for others") {
    Alone alone;
    Sync zk = alone.open();
    fill(zk, {"/a", "/a/x"}, "at ");
    for (int i = 0; i < 20; i++) {
        CHECK(zk.read(Query::descendants("/a"))->count == 1);
        CHECK(zk.read(Query::get("/a"))->stat.num_children == 1);
        const auto owned = zk.read(Query::ephemerals());
        REQUIRE(owned);
        CHECK(owned->stat.czxid == Zxid{});
        CHECK(owned->stat.num_children == 0);
        CHECK(owned->count == 0);
        const auto there = zk.read(Query::exists("/a"));
        REQUIRE(there);
        CHECK(there->count == 0);
        CHECK(there->bytes.empty());
    }
}

TEST_CASE("multi_read: a part that fails has its error alone; what is left out has one") {
    coord::ReplicaOptions options;
    options.limits.list_max = 2;
    options.limits.path_bytes_max = 40;
    options.limits.data_bytes_max = 80;
    options.limits.answer_bytes_max = 100;
    Alone alone(options);
    Sync zk = alone.open();
    fill(zk, {"/a", "/a/1", "/a/2"});
    REQUIRE(zk.create("/e", Bytes(80, 'x'), CreateMode::ephemeral));
    const auto read = zk.multi_read({Query::get("/e"), Query::get("/e"), Query::children("/a"),
                                     Query::children("/a"), Query::ephemerals(),
                                     Query::ephemerals("/", {"", 0}), Query::ephemerals("/a")});
    REQUIRE(read);
    const std::vector<Found>& parts = read->parts;
    CHECK(parts[0].bytes.size() == 80);
    CHECK(parts[2].names == Names{"1", "2"});
    for (const std::size_t i : {1u, 3u, 4u}) {  // no name to go on after, so it is no page
        CHECK(parts[i].error == Errc::too_large);
        CHECK(parts[i].zxid == read->zxid);
        CHECK(parts[i].stat.czxid == Zxid{});
        CHECK_FALSE(parts[i].more);
    }
    CHECK(parts[5].error == Errc::ok);
    CHECK(parts[5].more);
    CHECK(parts[6].error == Errc::ok);
    CHECK_FALSE(parts[6].more);
}

TEST_CASE("descendants: of the root they are known, and leave the room to others") {
    coord::ReplicaOptions options;
    options.limits.list_max = 2;
    Alone alone(options);
    Sync zk = alone.open();
    fill(zk, {"/a", "/a/1", "/a/2"});
    const auto read = zk.multi_read({Query::descendants("/"), Query::children("/a"),
                                     Query::descendants("/"), Query::descendants("/a")});
    REQUIRE(read);
    CHECK(read->parts[0].count == 6);
    CHECK(read->parts[1].names == Names{"1", "2"});
    CHECK(read->parts[2].count == 6);
    CHECK(read->parts[3].error == Errc::too_large);
}

// ---- Pages

TEST_CASE("list: page by page it is the whole; a page of another moment says so") {
    Alone alone;
    Sync zk = alone.open();
    REQUIRE(zk.create("/p", ""));
    Names all, with_prefix;
    for (int i = 0; i < 100; i++) {
        const Bytes name = (i % 3 == 0 ? "job-" : "task-") + std::to_string(1000 + i);
        REQUIRE(zk.create("/p/" + name, name + "!"));
        (i % 3 == 0 ? with_prefix : all).push_back(name);
    }
    all.insert(all.begin(), with_prefix.begin(), with_prefix.end());
    for (const std::size_t limit : {1u, 7u, 34u, 100u, 1000u}) {
        for (const BytesView prefix : {"", "job-", "task", "z"}) {
            Names listed, named;
            Page page{"", limit, Bytes(prefix)};
            Zxid zxid;
            for (bool more = true; more;) {
                const auto part = zk.read(Query::list("/p", page));
                REQUIRE(part);
                CHECK(part->nodes.size() <= limit);
                CHECK((zxid == Zxid{} || zxid == part->zxid));
                zxid = part->zxid;
                for (const coord::Child& each : part->nodes) {
                    CHECK(each.bytes == each.name + "!");
                    CHECK(each.stat.data_length == static_cast<int>(each.bytes.size()));
                    listed.push_back(each.name);
                }
                const auto names = zk.children("/p", page);
                REQUIRE(names);
                CHECK(names->names == names_of(part->nodes));
                CHECK(names->more == part->more);
                more = part->more;
                if (more) page.after = part->nodes.back().name;
            }
            CHECK(listed == (prefix == "" ? all
                             : prefix == "job-" ? with_prefix
                             : prefix == "z"    ? Names{}
                                                : Names(all.begin() + 34, all.end())));
        }
    }
    const Zxid before = zk.read(Query::list("/p", {"", 3}))->zxid;
    REQUIRE(zk.set("/p/job-1000", "changed"));
    CHECK(zk.read(Query::list("/p", {"job-1000", 3}))->zxid > before);
}

// ---- Ephemeral nodes

TEST_CASE("ephemerals: a session's own, in order, by prefix and in pages") {
    Alone alone;
    Sync zk = alone.open();
    Sync other = alone.open();
    fill(zk, {"/a", "/ab", "/b"});
    CHECK(zk.read(Query::ephemerals())->names.empty());
    for (const char* const path : {"/b/2", "/a/1", "/ab/3", "/a/2", "/e"}) {
        REQUIRE(zk.create(path, "", CreateMode::ephemeral));
    }
    REQUIRE(other.create("/a/other", "", CreateMode::ephemeral));
    const auto under = [&](BytesView prefix, const Page& page = {}) {
        const auto found = zk.read(Query::ephemerals(prefix, page));
        REQUIRE(found);
        return found->names;
    };
    CHECK(under("/") == Names{"/a/1", "/a/2", "/ab/3", "/b/2", "/e"});
    CHECK(under("/a") == Names{"/a/1", "/a/2", "/ab/3"});
    CHECK(under("/a/") == Names{"/a/1", "/a/2"});
    CHECK(under("/a/2") == Names{"/a/2"});
    CHECK(under("/c").empty());
    CHECK(under("/", {"/a/2", SIZE_MAX}) == Names{"/ab/3", "/b/2", "/e"});
    CHECK(under("/", {"/a/1", 2}) == Names{"/a/2", "/ab/3"});
    CHECK(under("/a", {"/", 2}) == Names{"/a/1", "/a/2"});
    CHECK(under("/a", {"/a/2", 2}) == Names{"/ab/3"});
    CHECK(zk.read(Query::ephemerals("/a", {"/a/1", 1}))->more);
    CHECK_FALSE(zk.read(Query::ephemerals("/a", {"/a/1", 2}))->more);
    CHECK(other.read(Query::ephemerals())->names == Names{"/a/other"});
    CHECK(zk.read(Query::ephemerals("")).error() == Errc::bad_arguments);
    CHECK(zk.read(Query::ephemerals("a")).error() == Errc::bad_arguments);
    REQUIRE(other.remove("/a/2"));
    CHECK(under("/a/").size() == 1);
    const auto both = zk.multi_read({Query::ephemerals("/b"), Query::children("/b")});
    REQUIRE(both);
    CHECK(both->parts[0].names == Names{"/b/2"});
    CHECK(both->parts[1].names == Names{"2"});
}

// ---- Levels

// What a server around a replica puts into its answers, also into those that are errors.
TEST_CASE("answer_zxid: of a write its own, if it failed too; of the rest the state's") {
    Alone rig;
    const Sync zk = rig.open(), other = rig.open();
    std::vector<Zxid> told;
    const auto note = [&](const auto&) { told.push_back(rig.replica.answer_zxid()); };
    const Zxid before = rig.replica.machine().applied();
    zk.session().create("/a", "", note);
    zk.session().create("/a", "", note);                // node_exists
    zk.session().set("/a", "1", note);
    zk.session().get("/none", note);                    // no_node
    zk.session().create("/b//", "", note);              // refused before it has a number
    zk.session().sync(note);
    zk.session().remove_watches("/a", coord::WatcherType::any, note);
    zk.session().remove("/a", 7, note);                 // bad_version
    other.session().create("/c", "", note);
    rig.polls();
    REQUIRE(told.size() == 9);
    const std::uint64_t counts[] = {1, 2, 3, 3, 3, 3, 3, 4, 5};
    for (std::size_t i = 0; i < told.size(); i++) {
        CAPTURE(i);
        const Zxid least{before.value + counts[i]};
        const bool is_write = i < 3 || i > 6;
        // What is no write may be answered of a later state.
        CHECK((is_write ? told[i] == least : told[i] >= least));
        if (i > 0 && i < 8) CHECK(told[i] >= told[i - 1]);
    }
}

TEST_CASE("at_least: a state that is there is read at once, one that is not is waited for") {
    Alone alone;
    Sync zk = alone.open();
    Sync other = alone.open();
    const Zxid first = made(zk.create("/a", "1"));
    Diary diary;
    zk.session().at_least(first).get("/a", diary.data("old"));
    alone.poll();
    CHECK(diary.take() == "old 1");
    const Zxid second{first.epoch(), first.counter() + 2};
    zk.session().at_least(second).get("/a", diary.event(), diary.data("waits"));
    zk.session().get("/a", diary.data("behind it"));
    alone.polls();
    CHECK(diary.take().empty());
    REQUIRE(other.set("/a", "2"));
    alone.polls();
    CHECK(diary.take().empty());
    REQUIRE(other.set("/a", "3"));
    alone.polls();
    CHECK(diary.take() == "waits 3, behind it 3");
    REQUIRE(other.set("/a", "4"));
    alone.polls();
    CHECK(diary.take() == "3 /a");
    CHECK(zk.at_least(second).children("/")->zxid >= second);
    CHECK(zk.at_least(second).exists("/a"));
    CHECK(zk.at_least(second).multi_read({Query::get("/a")})->zxid >= second);
    CHECK(zk.at_least(second).read(Query::get("none")).error() == Errc::bad_arguments);
}

TEST_CASE("at_least: it sees what its session wrote before, and nothing that it wrote after") {
    Alone alone;
    Sync zk = alone.open();
    Sync other = alone.open();
    const Zxid at = made(zk.create("/a", "0"));
    Diary diary;
    zk.session().set("/a", "1", {});
    zk.session().at_least(Zxid{at.value + 4}).get("/a", diary.data("read"));
    zk.session().set("/a", "2", {});
    zk.session().get("/a", diary.data("later"));
    alone.polls();
    CHECK(diary.take().empty());
    CHECK(other.get("/a")->bytes == "1");  // the second one has not been sent
    for (const char* const path : {"/x", "/y", "/z"}) REQUIRE(other.create(path, ""));
    alone.polls();
    CHECK(diary.take() == "read 1, later 2");
}

TEST_CASE("at_least: the end of the session ends the wait") {
    Alone alone;
    Sync zk = alone.open();
    Diary diary;
    zk.session().at_least(Zxid{9, 9}).get("/", diary.data("never"));
    zk.session().get("/", diary.data("behind it"));
    zk.session().at_least(Zxid{9, 8}).exists("/", diary.answer<coord::Stat>("nor this"));
    alone.polls();
    CHECK(diary.take().empty());
    zk.session().close(diary.answer<void>("close"));
    alone.polls();
    CHECK(diary.take() == "never cancelled, behind it , nor this cancelled, close ok");
    Sync next = alone.open();
    next.session().at_least(Zxid{9, 9}).get("/", diary.data("never"));
    next.session().linearizable().get("/none", diary.data("newest"));
    next.session().close(diary.answer<void>("close"));
    alone.polls();
    CHECK(diary.take() == "never cancelled, newest no_node, close ok");
}

TEST_CASE("at_least: requests that wait are bounded as others are") {
    coord::ReplicaOptions options;
    options.limits.requests_per_session_max = 3;
    Alone alone(options);
    Sync zk = alone.open();
    Diary diary;
    for (int i = 0; i < 4; i++) zk.session().at_least(Zxid{9, 9}).get("/", diary.data("read"));
    alone.polls();
    CHECK(diary.take() == "read too_many");
}

TEST_CASE("linearizable: every kind of read, and in order among the others") {
    Alone alone;
    Sync zk = alone.open();
    fill(zk, {"/a"});
    CHECK(zk.linearizable().get("/a")->bytes == "/a");
    CHECK(zk.linearizable().exists("/a"));
    CHECK(zk.linearizable().children("/")->names.size() == 2);
    CHECK(zk.linearizable().read(Query::descendants("/"))->count == 4);
    CHECK(zk.linearizable().get("/none").error() == Errc::no_node);
    Diary diary;
    const Session newest = zk.session().linearizable();
    for (int i = 0; i < 20; i++) {
        newest.set("/a", std::to_string(i), {});
        newest.get("/a", diary.data("n"));
        zk.session().get("/a", diary.data("l"));
    }
    alone.polls(50);
    std::string right;
    for (int i = 0; i < 20; i++) {
        const std::string value = std::to_string(i);
        right += (i == 0 ? "n " : ", n ") + value + ", l " + value;
    }
    CHECK(diary.take() == right);
}

TEST_CASE("a replica that fails ends reads that wait") {
    Alone alone;
    Sync zk = alone.open();
    Diary diary;
    zk.session().at_least(Zxid{9, 9}).get("/", diary.data("read"));
    zk.session().create("/a", "", diary.answer<coord::Created>("create"));
    alone.polls();
    CHECK(diary.take().empty());
    alone.disk.fail();
    zk.session().linearizable().get("/", diary.data("newest"));
    auto opened = Sync::open(alone.replica, {}, [&alone] { return alone.poll(), true; });
    CHECK(opened.error() == Errc::replica_failed);
    CHECK(diary.take() == "read replica_failed, create replica_failed, newest replica_failed");
}

TEST_CASE("three voters: a replica that is behind answers when it has what was asked for") {
    Ensemble ensemble;
    const std::uint32_t behind = ensemble.follower();
    Sync writer = ensemble.open(ensemble.leader());
    Sync reader = ensemble.open(behind, seconds(60));
    REQUIRE(writer.create("/a", "old"));
    REQUIRE(reader.sync());
    ensemble.sim.isolate(behind);
    const auto set = writer.set("/a", "new");
    REQUIRE(set);
    CHECK(reader.get("/a")->bytes == "old");
    Diary diary;
    reader.session().at_least(set->mzxid).get("/a", diary.data("at least"));
    reader.session().linearizable().get("/a", diary.data("newest"));
    ensemble.sim.run_for(seconds(3));
    CHECK(diary.take().empty());
    ensemble.sim.heal();
    ensemble.sim.run_for(seconds(3));
    CHECK(diary.take() == "at least new, newest new");
}

TEST_CASE("three voters: a leader that is cut off gives no linearizable read, but local ones") {
    Ensemble ensemble;
    const std::uint32_t old = ensemble.leader();
    Sync reader = ensemble.open(old, seconds(60));
    REQUIRE(reader.create("/a", "old"));
    ensemble.sim.isolate(old);
    Diary diary;
    reader.session().get("/a", diary.data("local"));
    reader.session().linearizable().get("/a", diary.data("newest"));
    REQUIRE(ensemble.sim.run_until(
        [&] {
            const std::uint32_t now = ensemble.leader();
            return now != 0 && now != old;
        },
        seconds(20)));
    Sync writer = ensemble.open(ensemble.leader());
    REQUIRE(writer.set("/a", "new"));
    CHECK(diary.take() == "local old");
    ensemble.sim.heal();
    ensemble.sim.run_for(seconds(5));
    CHECK(diary.take() == "newest new");
}

TEST_CASE("three voters: reads that wait end with their session, when it expires") {
    Ensemble ensemble;
    const std::uint32_t at = ensemble.follower();
    Sync zk = ensemble.open(at, seconds(1));
    ensemble.sim.isolate(at);
    Diary diary;
    zk.session().at_least(Zxid{99, 1}).get("/", diary.data("read"));
    zk.session().linearizable().get("/", diary.data("newest"));
    ensemble.sim.run_for(seconds(10));
    CHECK(diary.take().empty());
    ensemble.sim.heal();
    ensemble.sim.run_for(seconds(5));
    CHECK(diary.take() == "read session_expired, newest session_expired");
}

// A snapshot that its replica installs has neither of two sessions. The watcher of the first is
// destroyed with it, and what it holds asks for the second, whose end has not been told yet.
TEST_CASE("three voters: what a watcher holds reads of a session that is about to be over") {
    coord::SimulationOptions options = Ensemble::options(3);
    options.replica.snapshot_every_entries = 20, options.replica.log_entries_kept = 1;
    coord::Simulation sim(options);
    REQUIRE(sim.run_until([&] { return sim.leader() != coord::PeerId{}; }, seconds(30)));
    const std::uint32_t at = sim.leader().value == 1 ? 2 : 1;
    const auto open = [&](std::uint32_t id) {
        auto opened = Sync::open(sim.replica(id), coord::SessionOptions(), sim.pump());
        REQUIRE(opened);
        return Sync{*opened, sim.pump()};
    };
    const Sync first = open(at), second = open(at);
    REQUIRE(second.create("/e", "", CreateMode::ephemeral));
    Diary diary;
    std::shared_ptr<void> held(nullptr, [&](void*) {
        second.session().read(Query::ephemerals(), diary.answer<Found>("read"));
    });
    REQUIRE(first.exists("/never", [held](const WatchEvent&) {}).error() == Errc::no_node);
    const std::weak_ptr<void> lives = held;
    held = nullptr;
    sim.isolate(at);
    REQUIRE(sim.run_until([&] { return sim.leader().value != at && sim.leader().value != 0; },
                          seconds(30)));
    const Sync other = open(sim.leader().value);
    sim.run_for(seconds(15));
    REQUIRE_FALSE(sim.replica(sim.leader()).tree().contains("/e"));
    for (int i = 0; i < 100; i++) REQUIRE(other.set("/", "x"));
    sim.heal();
    sim.run_for(seconds(5));
    CHECK(sim.replica(at).counters().snapshots_installed == 1);
    CHECK(lives.expired());
    CHECK(diary.take() == "read session_expired");
}

TEST_CASE("three voters: a lossy network, and every linearizable read is as new as it says") {
    for (std::uint64_t seed = 1; seed <= 5; seed++) {
        Ensemble ensemble(seed);
        coord::SimulatedNetwork network;
        network.loss_permille = 150, network.repeat_permille = 100;
        ensemble.sim.set_network(network);
        Sync writer = ensemble.open(1, seconds(30));
        Sync reader = ensemble.open(2, seconds(30));
        REQUIRE(writer.create("/n", "0"));
        for (int i = 1; i <= 40; i++) {
            const auto set = writer.set("/n", std::to_string(i));
            REQUIRE(set);
            const Sync level = i % 2 == 0 ? reader.linearizable() : reader.at_least(set->mzxid);
            const auto read = level.get("/n");
            REQUIRE(read);
            CHECK(read->bytes == std::to_string(i));
            CHECK(read->zxid >= set->mzxid);
        }
    }
}

// ---- Below a path

TEST_CASE("below: every request, and what comes of it, is as it looks from there") {
    Alone alone;
    Sync zk = alone.open();
    const Sync app = zk.below("/app");
    CHECK(app.create("/a", "").error() == Errc::no_node);
    CHECK(app.exists("/").error() == Errc::no_node);
    const auto root = app.create("/", "root");
    REQUIRE(root);
    CHECK(root->path == "/");
    CHECK(zk.get("/app")->bytes == "root");
    CHECK(app.create("/a", "1")->path == "/a");
    CHECK(app.create("/a/s-", "", CreateMode::persistent_sequential)->path == "/a/s-0000000000");
    CHECK(app.create("/a/", "", CreateMode::persistent_sequential)->path == "/a/0000000001");
    CHECK(app.create("/", "", CreateMode::persistent_sequential)->path == "/0000000001");
    CHECK(zk.exists("/app/0000000001"));
    CHECK(zk.exists("/app/a/s-0000000000"));
    CHECK(app.get("/a")->bytes == "1");
    CHECK(app.set("/a", "2")->version == 1);
    CHECK(zk.get("/app/a")->bytes == "2");
    CHECK(app.children("/")->names == Names{"0000000001", "a"});
    CHECK(app.children("/a", {"0000000001", 9})->names == Names{"s-0000000000"});
    CHECK(app.remove("/a/s-0000000000"));
    CHECK(app.read(Query::get("/a"))->bytes == "2");
    CHECK(names_of(app.read(Query::list("/"))->nodes) == Names{"0000000001", "a"});
    CHECK(app.read(Query::descendants("/"))->count == 3);
    CHECK(app.sync());
    CHECK(app.below("/a").children("/")->names == Names{"0000000001"});
    CHECK(app.below("/").get("/a")->bytes == "2");
    CHECK(app.below("").get("/a")->bytes == "2");
    CHECK(zk.get("/a").error() == Errc::no_node);
    CHECK(app.session().id() == zk.session().id());
}

TEST_CASE("below: multi, its paths and errors") {
    Alone alone;
    Sync zk = alone.open();
    fill(zk, {"/app"});
    const Sync app = zk.below("/app");
    const auto done = app.multi({Op::create("/a", "1"),
                                 Op::create("/a/s-", "", CreateMode::ephemeral_sequential),
                                 Op::set("/a", "2"), Op::check("/", 0)});
    REQUIRE(done);
    CHECK(done.parts[0].path == "/a");
    CHECK(done.parts[1].path == "/a/s-0000000000");
    CHECK(done.parts[2].path.empty());
    CHECK(zk.get("/app/a")->bytes == "2");
    const auto failed = app.multi({Op::create("/b", ""), Op::remove("/none")});
    CHECK(failed.error == Errc::no_node);
    CHECK(failed.parts.size() == 2);
    CHECK(app.multi({Op::set("b", "")}).error == Errc::bad_arguments);
    CHECK(app.multi({Op::create("/b/", "")}).error == Errc::bad_arguments);
    CHECK(app.multi_read({Query::get("/a"), Query::get("a"), Query::exists("/")})->parts[1].error ==
          Errc::bad_arguments);
}

TEST_CASE("below: nothing outside is reached, whatever the path") {
    Alone alone;
    Sync zk = alone.open();
    fill(zk, {"/app", "/app/x", "/app2", "/x"});
    const Sync app = zk.below("/app");
    for (const char* const path : {"", "2", "x", "//", "/../x", "/x/..", "/./x", "/x/", "/\x01"}) {
        CAPTURE(path);
        CHECK(app.create(path, "").error() == Errc::bad_arguments);
        CHECK(app.set(path, "").error() == Errc::bad_arguments);
        CHECK(app.remove(path).error() == Errc::bad_arguments);
        CHECK(app.exists(path).error() == Errc::bad_arguments);
        CHECK(app.get(path).error() == Errc::bad_arguments);
        CHECK(app.children(path).error() == Errc::bad_arguments);
        CHECK(app.read(Query::list(path)).error() == Errc::bad_arguments);
        CHECK(app.remove_watches(path).error() == Errc::bad_arguments);
        CHECK(app.add_watch(path, coord::AddWatchMode::persistent, [](const WatchEvent&) {})
                  .error() == Errc::bad_arguments);
    }
    for (const char* const path : {"x", "/x/", "//", "/..", "/a//b", "2"}) {
        CAPTURE(path);
        for (const Sync& below : {zk.below(path), app.below(path), zk.below(path).below("/x")}) {
            CHECK(below.exists("/").error() == Errc::bad_arguments);
            CHECK(below.exists("/x").error() == Errc::bad_arguments);
            CHECK(below.create("/", "", CreateMode::persistent_sequential).error() ==
                  Errc::bad_arguments);
            CHECK(below.read(Query::ephemerals()).error() == Errc::bad_arguments);
        }
    }
    CHECK(zk.children("/")->names == Names{"app", "app2", "x", "zookeeper"});
}

TEST_CASE("below: the bound on a path is of the whole") {
    coord::ReplicaOptions options;
    options.limits.path_bytes_max = 10;
    Alone alone(options);
    Sync zk = alone.open();
    fill(zk, {"/app"});
    CHECK(zk.below("/app").create("/12345", ""));
    CHECK(zk.below("/app").create("/123456", "").error() == Errc::too_large);
    CHECK(zk.below("/app/12345/7").get("/").error() == Errc::too_large);
}

TEST_CASE("below: watchers hear of paths as they look from there") {
    Alone alone;
    Sync zk = alone.open();
    fill(zk, {"/app", "/app2"});
    const Sync app = zk.below("/app");
    Diary diary;
    REQUIRE(app.exists("/", diary.event()));
    REQUIRE(app.children("/", {}, diary.event()));
    CHECK(app.exists("/a", diary.event()).error() == Errc::no_node);
    REQUIRE(app.add_watch("/", coord::AddWatchMode::persistent_recursive, diary.event()));
    REQUIRE(zk.create("/app2/x", ""));
    REQUIRE(zk.create("/app/a", ""));
    alone.polls();
    CHECK(diary.take() == "1 /a, 1 /a, 4 /");
    REQUIRE(zk.set("/app", ""));
    alone.polls();
    CHECK(diary.take() == "3 /, 3 /");
    REQUIRE(app.remove_watches("/"));
    CHECK(diary.take() == "7 /");
    CHECK(app.remove_watches("/").error() == Errc::no_watcher);
}

TEST_CASE("below: ephemerals, of there alone") {
    Alone alone;
    Sync zk = alone.open();
    fill(zk, {"/app", "/app/a", "/app2"});
    for (const char* const path : {"/app/1", "/app/a/2", "/app/b", "/app2/3", "/4"}) {
        REQUIRE(zk.create(path, "", CreateMode::ephemeral));
    }
    const Sync app = zk.below("/app");
    CHECK(app.read(Query::ephemerals())->names == Names{"/1", "/a/2", "/b"});
    CHECK(app.read(Query::ephemerals("/a"))->names == Names{"/a/2"});
    CHECK(app.read(Query::ephemerals("/", {"/1", 1}))->names == Names{"/a/2"});
    CHECK(app.below("/a").read(Query::ephemerals())->names == Names{"/2"});
    CHECK(app.read(Query::ephemerals("2")).error() == Errc::bad_arguments);
    const auto parts = app.multi_read({Query::children("/"), Query::ephemerals("/b")});
    REQUIRE(parts);
    CHECK(parts->parts[0].names == Names{"1", "a", "b"});
    CHECK(parts->parts[1].names == Names{"/b"});
    CHECK(zk.read(Query::ephemerals("/app"))->names.size() == 4);
}

TEST_CASE("below: one session: answers in order, listeners and numbers shared, levels kept") {
    Alone alone;
    Sync zk = alone.open();
    fill(zk, {"/app", "/app/a"});
    const Session app = zk.session().below("/app");
    CHECK(app.next_number() == 1);
    CHECK(zk.session().next_number() == 2);
    Diary diary;
    zk.session().get("/app/a", diary.data("whole"));
    app.get("/a", diary.data("below"));
    app.linearizable().below("/a").get("/", diary.data("newest"));
    app.below("/a").linearizable().get("/", diary.data("newest"));
    alone.polls();
    CHECK(diary.take() == "whole /app/a, below /app/a, newest /app/a, newest /app/a");
    app.on_state([&](SessionState state) { diary.lines.emplace_back(coord::name(state)); });
    app.create("/b", "", {});
    app.multi({}, {});
    app.read(Query::ephemerals(), {});
    app.multi_read({Query::ephemerals()}, {});
    app.close(diary.answer<void>("close"));
    alone.polls();
    CHECK(diary.take() == "close ok, CLOSED");
    CHECK(zk.get("/app/a").error() == Errc::session_expired);
}

TEST_CASE("below: a lock lives there") {
    Alone alone;
    Sync zk = alone.open();
    Sync other = alone.open();
    fill(zk, {"/app"});
    coord::Lock lock(zk.session().below("/app").linearizable(), "/locks/door");
    const auto grant = zk.wait<coord::Grant>([&](auto done) { lock.acquire(done); });
    REQUIRE(grant);
    CHECK(coord::parent_path(grant->node) == "/locks/door");
    CHECK(zk.exists("/app" + grant->node));
    coord::Lock rival(other.session(), "/app/locks/door");
    CHECK(other.wait<coord::Grant>([&](auto done) { rival.try_acquire(done); }).error() ==
          Errc::lock_busy);
    REQUIRE(zk.wait<void>([&](auto done) { lock.release(done); }));
    CHECK(other.wait<coord::Grant>([&](auto done) { rival.try_acquire(done); }));
}

// ---- Answers in bulk

namespace {

// Values of 4,000 bytes and answers of 10,000, so that 160,000 bytes may wait to be told.
coord::ReplicaOptions small_answers() {
    coord::ReplicaOptions options = session_rig::narrow(100, 4000, 10000);
    options.limits.requests_per_session_max = 2000;
    return options;
}

constexpr std::size_t ready_bytes_max = 16 * 10000 + 10000;

}  // namespace

TEST_CASE("R12 however many reads are released at once, a bounded part is answered in a poll") {
    Alone alone(small_answers());
    Sync zk = alone.open();
    Sync writer = alone.open();
    fill(zk, {"/a", "/a/x", "/a/y"}, Bytes(3990, 'd'));
    const Zxid next(alone.replica.machine().applied().value + 1);
    std::vector<Zxid> zxids;
    std::size_t bytes = 0;
    const Session waiting = zk.session().at_least(next);
    for (int i = 0; i < 500; i++) {
        waiting.read(Query::list("/a"), [&](const coord::Result<Found>& found) {
            REQUIRE(found);
            zxids.push_back(found->zxid);
            for (const coord::Child& each : found->nodes) bytes += each.bytes.size();
        });
    }
    alone.polls();
    CHECK(zxids.empty());
    writer.session().set("/a", "go", {});
    std::size_t polls = 0;
    for (std::size_t before = 0; zxids.size() < 500; polls++) {
        alone.poll();
        CHECK(bytes - before <= ready_bytes_max);
        before = bytes;
        const bool is_due = alone.replica.next_deadline() <= alone.now;
        CHECK((is_due || zxids.size() == 500));
        REQUIRE(polls < 1000);
    }
    CHECK(polls >= 500 * 7980 / ready_bytes_max);
    CHECK(polls < 100);
    for (const Zxid each : zxids) CHECK(each == next);
}

TEST_CASE("R12 reads that are asked for between two polls count, and so do those of callbacks") {
    Alone alone(small_answers());
    Sync zk = alone.open();
    fill(zk, {"/a"}, Bytes(3990, 'd'));
    alone.polls();
    std::size_t bytes = 0, left = 300;
    std::function<void(const coord::Result<coord::Data>&)> again;
    again = [&](const coord::Result<coord::Data>& data) {
        REQUIRE(data);
        bytes += data->bytes.size();
        if (left > 0) left -= 1, zk.session().get("/a", again), zk.session().get("/a", [](auto) {});
    };
    for (int i = 0; i < 200; i++) zk.session().get("/a", again);
    for (std::size_t before = 0; bytes < 500 * 3992;) {
        alone.poll();
        CHECK(bytes - before <= ready_bytes_max);
        REQUIRE(bytes > before);
        before = bytes;
    }
}

TEST_CASE("R12 R9 what is written meanwhile is seen by the reads after it, and by none before it") {
    Alone alone(small_answers());
    Sync zk = alone.open();
    Sync other = alone.open();
    fill(zk, {"/a", "/b", "/b/big"}, Bytes(3990, 'd'));
    std::vector<int> versions;
    std::vector<std::string> order;
    int watched = 0;
    for (int i = 0; i < 200; i++) {
        zk.session().read(Query::list("/b"), [&](const coord::Result<Found>& found) {
            REQUIRE(found);
            versions.push_back(found->stat.version);
        });
        zk.session().exists("/b", [&](const coord::WatchEvent&) { watched += 1; }, {});
        zk.session().set("/b", std::to_string(i), [&, i](const coord::Result<coord::Stat>& stat) {
            REQUIRE(stat);
            CHECK(stat->version == i + 1);
            CHECK(versions.size() == static_cast<std::size_t>(i) + 1);  // answers in their order
            CHECK(watched == i + 1);                                    // and events before them
        });
        other.session().set("/a", std::to_string(i), {});
    }
    for (int i = 0; i < 200; i++) alone.poll();
    REQUIRE(versions.size() == 200);
    for (int i = 0; i < 200; i++) CHECK(versions[static_cast<std::size_t>(i)] == i);
}

TEST_CASE("R12 who reads without end does not keep others from their answers") {
    Alone alone(small_answers());
    Sync greedy = alone.open();
    Sync modest = alone.open();
    Sync last = alone.open();
    fill(greedy, {"/a"}, Bytes(3990, 'd'));
    std::function<void(const coord::Result<coord::Data>&)> again;
    again = [&](const coord::Result<coord::Data>&) { greedy.session().get("/a", again); };
    for (int i = 0; i < 1000; i++) greedy.session().get("/a", again);
    alone.polls();
    alone.patience = 20;
    for (const Sync& each : {modest, last}) {
        const Sync hasty(each.session(), alone.pump(20));
        CHECK(hasty.get("/a"));
        CHECK(hasty.set("/a", Bytes(3990, 'e')));
        CHECK(hasty.get("/a"));
    }
    again = nullptr;
}

TEST_CASE("R12 answers of every kind count: names, nodes, several at once, parts of a multi") {
    coord::ReplicaOptions options = small_answers();
    Alone alone(options);
    Sync zk = alone.open();
    Names paths = {"/a"};
    for (int i = 0; i < 100; i++) paths.push_back("/a/" + Bytes(60, 'n') + std::to_string(i));
    fill(zk, paths);
    std::size_t told = 0;
    const auto count = [&told](const auto&) { told += 1; };
    const auto most_a_poll = [&](std::size_t all) {
        std::size_t most = 0;
        for (std::size_t before = told = 0; told < all;) {
            alone.poll();
            REQUIRE(told > before);
            most = (std::max)(most, told - before);
            before = told;
        }
        return most;
    };
    for (int i = 0; i < 200; i++) zk.session().children("/a", count);
    CHECK(most_a_poll(200) < 100);
    for (int i = 0; i < 200; i++) zk.session().read(Query::children("/a"), count);
    CHECK(most_a_poll(200) < 100);
    const std::vector<Query> queries = {Query::children("/a"), Query::get("/a")};
    for (int i = 0; i < 200; i++) zk.session().multi_read(queries, count);
    CHECK(most_a_poll(200) < 100);
    const std::vector<Op> parts(100, Op::check("/a"));
    for (int i = 0; i < 200; i++) zk.session().multi(parts, count);
    CHECK(most_a_poll(200) < 100);
    for (int i = 0; i < 200; i++) zk.session().exists("/a", count);
    CHECK(most_a_poll(200) == 200);
}

TEST_SUITE_END();
