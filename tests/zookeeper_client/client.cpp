// The client of examples/zookeeper_client by itself: connections that are cut before any frame,
// sessions that expire, go on elsewhere or are taken, bytes that are none, directories, identities.

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "rig.hpp"
#include "support.hpp"

namespace {

using namespace rig;
using coord::CreateMode;
using coord::Result;
using coord::Session;
using coord::SessionState;
using coord::WatchEvent;
using Lines = std::vector<std::string>;

template <class T>
coord::Callback<void(Result<T>)> note(Lines& lines, const std::string& who) {
    return [&lines, who](const Result<T>& result) {
        lines.push_back(who + ": " + coord::name(result.error()));
    };
}

coord::Watcher hears(Lines& lines, const std::string& who) {
    return [&lines, who](const WatchEvent& event) {
        lines.push_back(who + ": event " + std::to_string(static_cast<int>(event.type)) + " " +
                        event.path);
    };
}

std::string joined(const Lines& lines) {
    std::string all;
    for (const std::string& line : lines) all += (all.empty() ? "" : "; ") + line;
    return all;
}

// How a session is, as it is told.
Lines& states(const Session& session, Lines& lines) {
    session.on_state([&lines](SessionState state) { lines.push_back(coord::name(state)); });
    return lines;
}

// A session of the replica itself, beside the client's.
Sync beside(Alone& one) {
    const auto opened = Sync::open(*one.replica, {}, one.pump());
    REQUIRE(opened);
    return {*opened, one.pump()};
}

}  // namespace

TEST_SUITE("zookeeper_client") {

TEST_CASE("a connect string has hosts, ports and a directory") {
    const auto read = [](const std::string& text) {
        zookeeper_client::Options options;
        const std::string error = options.read(text);
        std::string all = options.chroot;
        for (const auto& one : options.servers) {
            all += " " + one.host + "," + std::to_string(one.port);
        }
        return error.empty() ? all : "wrong";
    };
    CHECK(read("one") == " one,2181");
    CHECK(read("one:1,two:22/a/b") == "/a/b one,1 two,22");
    CHECK(read("[::1]:5,[fe80::2]") == " ::1,5 fe80::2,2181");
    CHECK(read("one/") == "/ one,2181");
    for (const char* const text : {"", ",", "one,", "one:", "one:0", "one:65536", "one:x", ":1",
                                   "one//a", "one/a/"}) {
        CHECK(read(text) == "wrong");
    }
}

TEST_CASE("answers, refusals and states come in poll, and in their order") {
    Alone one;
    const Session session = one.open();
    Lines lines;
    states(session, lines);
    session.create("/a", "1", note<coord::Created>(lines, "create"));
    session.create("no path", "", note<coord::Created>(lines, "path"));
    session.create_or_set("/a", "2", note<coord::Created>(lines, "create_or_set"));
    session.read(coord::Query::list("/"), note<coord::Found>(lines, "list"));
    session.get("/a", note<coord::Data>(lines, "get"));
    session.create("/b", Bytes(2 * 1024 * 1024, 'x'), note<coord::Created>(lines, "large"));
    session.remove("/a", note<void>(lines, "remove"));
    session.close(note<void>(lines, "close"));
    session.get("/a", note<coord::Data>(lines, "late"));
    CHECK(lines.empty());
    one.run_for(milliseconds(100));
    CHECK(joined(lines) == joined({"late: session_expired", "create: ok", "path: bad_arguments",
                         "create_or_set: unimplemented", "list: unimplemented", "get: ok",
                         "large: too_large", "remove: ok", "close: ok", "CLOSED"}));
    CHECK(session.state() == SessionState::expired);
    CHECK(session.certain_until() == Time{});
}

TEST_CASE("what is asked for is bounded, but for what frees") {
    Alone one;
    const Session session = one.open();
    one.wires.is_silent = true;
    Lines lines;
    const std::size_t most = zookeeper_client::Client::waiting_max;
    for (std::size_t i = 0; i <= most; i++) session.exists("/", note<coord::Stat>(lines, "read"));
    session.remove("/a", note<void>(lines, "remove"));
    one.turn();
    CHECK(joined(lines) == joined({"read: too_many"}));
    one.wires.is_silent = false;
    one.wires.cut_all();
    one.run_for(seconds(2));
    CHECK(lines.size() == most + 2);
    CHECK(lines.back() == "remove: no_node");
}

TEST_CASE("no changes are told of: a subscription says so, to whoever still wants it") {
    Alone one;
    const Session session = one.open();
    std::vector<Errc> told;
    const auto each = [&](const coord::Change& change) { told.push_back(change.error); };
    const coord::Subscription kept = session.on_changes("/", {}, each);
    { const coord::Subscription gone = session.on_changes("/", {}, each); }
    bool is_woken = false;
    const coord::Subscription woken = session.subscribe("/", {}, [&] { is_woken = true; });
    CHECK(told.empty());
    one.turn();
    CHECK(told == std::vector<Errc>{Errc::unimplemented});
    CHECK(is_woken);
    CHECK(woken.take().error() == Errc::unimplemented);
    CHECK(kept.error() == Errc::unimplemented);
}

TEST_CASE("a session is kept alive while nobody asks for anything, and is certain of it") {
    Alone one;
    const Session session = one.open(seconds(4));
    CHECK(session.timeout() == seconds(4));
    Lines lines;
    states(session, lines);
    for (int i = 0; i < 600; i++) {
        one.turn(milliseconds(100));
        CHECK(session.certain_until() > one.now);
        CHECK(session.certain_until() < one.now + seconds(4));
    }
    CHECK(lines.empty());
    CHECK(one.client.next_deadline() > one.now);
    CHECK(one.client.next_deadline() <= one.now + seconds(4) / 3);
}

TEST_CASE("who is cut off for too long has expired, and was certain of nothing before") {
    Alone one;
    const Session session = one.open(seconds(4));
    const Sync zk = one.sync(session), other = beside(one);
    REQUIRE(zk.create("/e", "", CreateMode::ephemeral));
    Lines lines;
    states(session, lines);
    REQUIRE(zk.get("/e", hears(lines, "watch")));
    Time gone;
    REQUIRE(other.exists("/e", [&](const WatchEvent&) { gone = one.now; }));
    one.wires.is_silent = true;
    session.set("/e", "in flight", note<coord::Stat>(lines, "in flight"));
    one.turn();
    session.get("/e", note<coord::Data>(lines, "read"));
    one.run_for(seconds(2));
    const Time certain = session.certain_until();
    one.run_for(seconds(1));
    session.set("/e", "not sent", note<coord::Stat>(lines, "never sent"));
    one.run_for(seconds(5));
    CHECK(gone != Time{});
    CHECK(session.certain_until() == certain);
    CHECK(certain < gone);
    CHECK(session.state() == SessionState::suspended);
    CHECK(joined(lines) == joined({"in flight: outcome_unknown", "SUSPENDED"}));
    REQUIRE(session.unresolved().size() == 1);
    CHECK(session.unresolved()[0].path == "/e");
    one.wires.is_silent = false;
    one.run_for(seconds(3));
    CHECK(joined(lines) == joined({"in flight: outcome_unknown", "SUSPENDED",
                                   "read: session_expired", "never sent: session_expired",
                                   "EXPIRED"}));
    CHECK(zk.get("/").error() == Errc::session_expired);
    CHECK(session.unresolved().size() == 1);
}

// Writes, each of which leaves a trace of its own, and reads among them.
struct Script {
    static constexpr int writes = 6;
    explicit Script(const Session& session) {
        for (int i = 0; i < writes; i++) {
            const Bytes number = std::to_string(i);
            session.create("/p/" + number + "-", number, CreateMode::persistent_sequential,
                           [this](const Result<coord::Created>& created) {
                               results.push_back(created.error());
                           });
            session.get("/p", [this](const Result<coord::Data>& data) {
                results.push_back(data.error());
            });
        }
    }
    std::vector<Errc> results;
};

TEST_CASE("cut before any of the frames: all is answered once, and nothing is written twice") {
    std::uint64_t unknown = 0, cut = 0;
    for (std::uint64_t at = 1; at < 200; at++) {
        Alone one;
        const Session session = one.open();
        const Sync zk = one.sync(session);
        REQUIRE(zk.create("/p", ""));
        one.wires.cut_at = one.wires.frames + at;
        const Script script(session);
        one.run_for(seconds(3));
        INFO(at);
        REQUIRE(script.results.size() == 2 * Script::writes);
        std::vector<int> found(Script::writes);
        const std::vector<Bytes> names = zk.children("/p")->names;
        for (const Bytes& name : names) {
            found.at(static_cast<std::size_t>(name[0] - '0')) += 1;
        }
        std::size_t doubtful = 0;
        for (std::size_t i = 0; i < Script::writes; i++) {
            const Errc write = script.results[2 * i];
            CHECK(script.results[2 * i + 1] == Errc::ok);  // reads are asked for again
            CHECK((write == Errc::ok || write == Errc::outcome_unknown));
            CHECK(found[i] <= 1);
            if (write == Errc::ok) CHECK(found[i] == 1);
            if (write == Errc::outcome_unknown) doubtful += 1;
        }
        CHECK(session.unresolved().size() == doubtful);
        CHECK(session.state() == SessionState::connected);
        unknown += doubtful;
        if (one.wires.frames < one.wires.cut_at) break;  // there are no more
        cut = at;
    }
    CHECK(cut > 20);
    CHECK(unknown > 20);
}

TEST_CASE("a lock that is cut off anywhere is held by one, and leaves nothing behind (K8)") {
    for (std::uint64_t at = 1; at < 200; at++) {
        Alone one;
        const Session session = one.open();
        const Sync other = beside(one);
        one.wires.cut_at = one.wires.frames + at;
        INFO(at);
        coord::Lock lock(session, "/locks/door"), theirs(other.session(), "/locks/door");
        std::vector<std::uint64_t> tokens;
        std::vector<std::string> told;
        lock.acquire([&](const Result<coord::Grant>& grant) {
            told.push_back(std::string("ours ") + coord::name(grant.error()));
            if (grant) tokens.push_back(grant->fencing_token);
        });
        one.run_for(seconds(3));
        CHECK(joined(told) == joined({"ours ok"}));
        CHECK(lock.is_held(one.now));
        theirs.acquire([&](const Result<coord::Grant>& grant) {
            told.push_back(std::string("theirs ") + coord::name(grant.error()));
            if (grant) tokens.push_back(grant->fencing_token);
        });
        one.run_for(milliseconds(100));
        CHECK(told.size() == 1);
        lock.release(note<void>(told, "release"));
        one.run_for(seconds(3));
        std::sort(told.begin() + 1, told.end());
        CHECK(joined(told) == joined({"ours ok", "release: ok", "theirs ok"}));
        CHECK(tokens[0] < tokens[1]);
        CHECK(other.children("/locks/door")->names.size() == 1);
        theirs.release();
        one.run_for(milliseconds(100));
        CHECK(other.children("/locks/door")->names.empty());
        if (one.wires.frames < one.wires.cut_at) break;
    }
}

TEST_CASE("a downgrade that is cut off anywhere is done once (K8)") {
    for (std::uint64_t at = 1; at < 60; at++) {
        Alone one;
        const Session session = one.open();
        const Sync other = beside(one);
        INFO(at);
        coord::ReadWriteLock lock(session, "/l");
        Lines told;
        lock.acquire(coord::Access::write, note<coord::Grant>(told, "write"));
        one.run_for(milliseconds(100));
        one.wires.cut_at = one.wires.frames + at;
        lock.downgrade(note<coord::Grant>(told, "read"));
        one.run_for(seconds(3));
        CHECK(joined(told) == joined({"write: ok", "read: ok"}));
        const auto names = other.children("/l")->names;
        REQUIRE(names.size() == 1);
        CHECK(names[0].find("__READ__") != Bytes::npos);
        lock.release();
        one.run_for(seconds(3));
        CHECK(other.children("/l")->names.empty());
        if (one.wires.frames < one.wires.cut_at) break;
    }
}

TEST_CASE("a session goes on at another server, and hears of what it has missed, once") {
    coord::Simulation sim;
    REQUIRE(sim.run_until([&] { return sim.leader() != coord::PeerId{}; }, seconds(30)));
    sim.run_for(seconds(2));
    {
        Server one(sim.replica(1)), two(sim.replica(2)), three(sim.replica(3));
        std::vector<Server*> servers = {&one, &two, &three};
        Wires wires(servers);
        zookeeper_client::Client client(options_of(3), wires);
        wires.client = &client;
        const auto turn = [&] {
            sim.run_for(milliseconds(5));
            for (Server* server : servers) server->turn(sim.now());
            wires.turn();
            client.poll(sim.now());
        };
        const auto pass = [&](Duration time) {
            for (const Time end = sim.now() + time; sim.now() < end;) turn();
        };
        const coord::Pump pump = [&, end = sim.now() + seconds(100)] {
            return turn(), sim.now() < end;
        };
        const auto opened = Sync::open(client, {}, pump);
        REQUIRE(opened);
        const Sync zk(*opened, pump);
        const auto beside = Sync::open(sim.replica(1), {}, pump);
        REQUIRE(beside);
        const Sync other(*beside, pump);
        Lines lines;
        states(*opened, lines);
        REQUIRE(zk.create("/e", "", CreateMode::ephemeral));
        REQUIRE(zk.create("/d", ""));
        REQUIRE(zk.get("/e", hears(lines, "data")));
        REQUIRE(zk.children("/e", {}, hears(lines, "children")));
        REQUIRE(zk.exists("/later", hears(lines, "exists")).error() == Errc::no_node);
        REQUIRE(zk.add_watch("/d", coord::AddWatchMode::persistent, hears(lines, "stays")));
        for (int round = 0; round < 2; round++) {
            const int at = client.server_of(opened->id())->port;
            wires.is_down.at(static_cast<std::size_t>(at - 1)) = true;
            wires.cut_all();
            if (round == 0) {
                REQUIRE(other.set("/e", "changed"));
                REQUIRE(other.create("/later", ""));
            }
            pass(seconds(2));
            REQUIRE(client.server_of(opened->id()) != nullptr);
            CHECK(client.server_of(opened->id())->port != at);
            std::sort(lines.begin(), lines.end());
            if (round == 0) {
                CHECK(joined(lines) == joined({"CONNECTED", "SUSPENDED", "data: event 3 /e",
                                               "exists: event 1 /later"}));
            } else {
                CHECK(joined(lines) == joined({"CONNECTED", "SUSPENDED"}));
            }
            lines.clear();
        }
        REQUIRE(zk.sync());
        CHECK(zk.get("/e")->bytes == "changed");
        CHECK(zk.get("/e")->stat.ephemeral_owner == opened->id());
        REQUIRE(other.set("/d", "x"));
        pass(milliseconds(200));
        CHECK(joined(lines) == joined({"stays: event 3 /d"}));
        // A read of the newest sees what was written elsewhere.
        for (int i = 0; i < 5; i++) {
            REQUIRE(other.set("/d", std::to_string(i)));
            CHECK(zk.linearizable().get("/d")->bytes == std::to_string(i));
            const auto stat = other.set("/d", "then");
            CHECK(zk.at_least(stat->mzxid).get("/d")->bytes == "then");
        }
        wires.cut_all();
        for (int i = 1; i <= 3; i++) sim.crash(static_cast<std::uint32_t>(i));
    }
}

// All watches in one request were more than a server takes: it ended the connection, and the client
// came back with the same, and so on for ever.
TEST_CASE("ZooKeeper F5 (ZOOKEEPER-706): more watches than a frame has room for are set again") {
    Alone one;
    const Session session = one.open(seconds(30));
    const Sync zk = one.sync(session), other = beside(one);
    Lines lines;
    const auto path = [](int i) { return "/" + Bytes(120, 'n') + std::to_string(i); };
    int set = 0;
    constexpr int count = 10000;
    for (int i = 0; i < count; i++) {
        session.exists(path(i), hears(lines, "exists"), [&](const Result<coord::Stat>& r) {
            set += r.error() == Errc::no_node ? 1 : 0;
        });
        while (i % 500 == 499 && set <= i) one.turn();
    }
    REQUIRE(set == count);
    one.wires.largest = 0;
    const std::uint64_t connections = one.wires.connections;
    one.wires.cut_all();
    for (const int i : {0, count / 2, count - 1}) REQUIRE(other.create(path(i), ""));
    REQUIRE(zk.sync());
    one.run_for(seconds(1));
    CHECK(lines.size() == 3);
    CHECK(one.wires.connections == connections + 1);
    CHECK(one.wires.largest > 100000);
    CHECK(one.wires.largest < 200000);
}

TEST_CASE("bytes that are none end the connection, and nothing else") {
    coord::Rng rng(support::seed == 0 ? 1 : support::seed);
    Alone one;
    const Session session = one.open();
    const Sync zk = one.sync(session);
    REQUIRE(zk.create("/e", "x", CreateMode::ephemeral));
    const auto framed = [](const Bytes& frame) {
        Bytes bytes;
        coord::Writer(bytes).bytes(frame);
        return bytes;
    };
    for (int i = 0; i < 400; i++) {
        Lines lines;
        session.get("/e", note<coord::Data>(lines, "get"));
        session.children("/", note<coord::Children>(lines, "list"));
        session.multi({coord::Op::set("/e", "y")}, [&](const coord::Multi&) {
            lines.push_back("multi");
        });
        const auto kind = rng.below(6);
        Bytes frame(static_cast<std::size_t>(rng.below(60)), '\0');
        for (char& c : frame) c = static_cast<char>(rng.below(256));
        if (kind == 0) one.wires.say(Bytes("\x7f\xff\xff\xff", 4) + frame);
        if (kind == 1) one.wires.say(Bytes("\x80\0\0\0", 4) + frame);
        if (kind == 2) one.wires.say(framed(frame));
        if (kind >= 3) {  // an answer that is owed, with a body that is none
            Bytes answer;
            coord::Writer out(answer);
            out.i32(kind == 3 ? -1 : static_cast<std::int32_t>(rng.below(3000)));
            out.i64(1), out.i32(0);
            one.wires.say(framed(answer + frame));
        }
        one.run_for(seconds(1));
        CAPTURE(kind);
        CAPTURE(i);
        REQUIRE(session.state() == SessionState::connected);
        CHECK(lines.size() == 3);
    }
    CHECK(one.sync(session).get("/e")->stat.ephemeral_owner == session.id());
}

TEST_CASE("below a directory of the servers nothing else is seen") {
    Alone one("/app");
    const Session session = one.open();
    const Sync zk = one.sync(session), other = beside(one);
    CHECK(zk.create("/a", "").error() == Errc::no_node);  // the directory
    REQUIRE(other.create("/app", "top"));
    CHECK(zk.create("/a", "1")->path == "/a");
    CHECK(zk.create("/n-", "", CreateMode::ephemeral_sequential)->path == "/n-0000000001");
    CHECK(zk.get("/")->bytes == "top");
    CHECK(zk.children("/")->names == std::vector<Bytes>{"a", "n-0000000001"});
    CHECK(other.get("/app/a")->bytes == "1");
    CHECK(zk.multi({coord::Op::create("/m", "")}).parts.at(0).path == "/m");
    CHECK(zk.read(coord::Query::ephemerals())->names == std::vector<Bytes>{"/n-0000000001"});
    CHECK(zk.below("/a").create("/b", "")->path == "/b");
    Lines lines;
    REQUIRE(zk.get("/a", hears(lines, "a")));
    REQUIRE(zk.below("/a").get("/b", hears(lines, "b")));
    REQUIRE(zk.add_watch("/", coord::AddWatchMode::persistent_recursive, hears(lines, "all")));
    REQUIRE(other.set("/app/a", "2"));
    REQUIRE(other.set("/app/a/b", "2"));
    one.run_for(milliseconds(50));
    CHECK(joined(lines) == joined({"a: event 3 /a", "all: event 3 /a", "b: event 3 /b",
                         "all: event 3 /a/b"}));
    one.wires.cut_all();
    lines.clear();
    one.run_for(seconds(2));
    REQUIRE(other.create("/app/new", ""));
    one.run_for(milliseconds(50));
    CHECK(joined(lines) == joined({"all: event 1 /new"}));
    coord::Lock lock(session, "/lock");
    const auto grant = zk.wait<coord::Grant>([&](auto done) { lock.acquire(done); });
    REQUIRE(grant);
    CHECK(other.children("/app/lock")->names.size() == 1);
    CHECK(grant->node.find("/lock/_c_") == 0);
    CHECK(grant->czxid.value == grant->fencing_token);
}

TEST_CASE("credentials go along to the next connection") {
    Alone one;
    const Session session = one.open();
    const Sync zk = one.sync(session);
    REQUIRE(zk.add_auth("digest", "u:p"));
    REQUIRE(zk.create("/mine", "", CreateMode::persistent, {}, coord::creator_acl()));
    one.wires.cut_all();
    REQUIRE(zk.set("/mine", "x"));
    CHECK(zk.add_auth("none", "x").error() == Errc::auth_failed);
    REQUIRE(zk.set("/mine", "y"));
    CHECK(session.state() == SessionState::connected);
}

TEST_CASE("a session is attached by its id and password, in turns") {
    Alone one;
    const Session session = one.open();
    const Sync zk = one.sync(session);
    REQUIRE(zk.create("/e", "", CreateMode::ephemeral));
    Lines lines;
    states(session, lines);
    coord::SessionPassword wrong = session.password();
    wrong.low ^= 1;
    CHECK(Sync::attach(one.client, session.id(), wrong, one.pump()).error() ==
          Errc::session_expired);
    CHECK(Sync::attach(one.client, coord::SessionId{}, wrong, one.pump()).error() ==
          Errc::session_expired);
    const auto second = Sync::attach(one.client, session.id(), session.password(), one.pump());
    REQUIRE(second);
    CHECK(second->id() == session.id());
    CHECK(session.state() == SessionState::moved);
    CHECK(second->state() == SessionState::connected);
    CHECK(zk.get("/e").error() == Errc::session_moved);
    CHECK(std::count(lines.begin(), lines.end(), "MOVED") == 1);
    const Sync again = one.sync(*second);
    CHECK(again.get("/e")->stat.ephemeral_owner == second->id());
    CHECK(second->password().high == one.client.session_password(second->id(),
                                                                 coord::any_holding).high);
    REQUIRE(again.close());
    CHECK(beside(one).exists("/e").error() == Errc::no_node);
}

TEST_CASE("barriers: one that is raised, waited for and lowered; a double one is not there") {
    Alone one;
    const Session session = one.open();
    const Sync zk = one.sync(session);
    coord::Barrier barrier(session, "/b/barrier");
    REQUIRE(zk.wait<void>([&](auto done) { barrier.raise(done); }));
    Lines lines;
    barrier.wait(note<void>(lines, "wait"));
    one.run_for(milliseconds(100));
    CHECK(lines.empty());
    for (std::uint64_t at = 1; at < 12; at++) {
        one.wires.cut_at = one.wires.frames + at;
        REQUIRE(zk.wait<void>([&](auto done) { barrier.lower(done); }));
        one.run_for(seconds(1));
        CHECK(joined(lines) == joined({"wait: ok"}));
        lines.clear();
        one.wires.cut_at = one.wires.frames + at;
        REQUIRE(zk.wait<void>([&](auto done) { barrier.raise(done); }));
        one.run_for(seconds(1));
        CHECK(zk.exists("/b/barrier"));
        barrier.wait(note<void>(lines, "wait"));
    }
    coord::DoubleBarrier two(session, "/b/two", 2);
    CHECK(zk.wait<void>([&](auto done) { two.enter(done); }).error() == Errc::unimplemented);
    one.run_for(seconds(1));
    CHECK(zk.children("/b/two")->names.empty());
}

}  // TEST_SUITE
