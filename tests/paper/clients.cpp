// Scenarios of clients by the names of their catalogue: sessions, ephemeral nodes, watches and
// recipes (C), load (L), hostile input (H); and of ZooKeeper's own bugs those of sessions and
// watches (D, F). What has a test beside its chapter, or is not covered, scenarios.txt has.

#include <memory>
#include <string>
#include <vector>

#include "../session_rig.hpp"

namespace {

using coord::Bytes;
using coord::CreateMode;
using coord::Errc;
using coord::milliseconds;
using coord::PeerId;
using coord::Result;
using coord::seconds;
using coord::Session;
using coord::SessionId;
using coord::SessionPassword;
using coord::SessionState;
using coord::Sync;
using coord::WatchEvent;
using coord::Zxid;
using session_rig::Alone;
using session_rig::Ensemble;

struct Ticket {
    SessionId id;
    SessionPassword password;
};

Ticket ticket(const Sync& zk) { return {zk.session().id(), zk.session().password()}; }

Result<Session> attach(Ensemble& all, std::uint32_t at, const Ticket& ticket) {
    return Sync::attach(all.sim.replica(at), ticket.id, ticket.password, all.sim.pump());
}

bool is_known(Ensemble& all, SessionId id) {
    return all.sim.replica(all.leader()).machine().find_session(id) != nullptr;
}

// The leader goes; another one comes.
void change_leader(Ensemble& all) {
    const PeerId gone = all.sim.leader();
    REQUIRE(gone != PeerId{});
    all.sim.isolate(gone);
    const auto another = [&] { return all.sim.leader() != PeerId{} && all.sim.leader() != gone; };
    REQUIRE(all.sim.run_until(another, seconds(20)));
    all.sim.heal();
}

std::string text_of(const WatchEvent& event) {
    const char* const names[] = {"created", "deleted", "data_changed", "children_changed"};
    return std::string(names[static_cast<int>(event.type) - 1]) + " " + event.path + ", ";
}

}  // namespace

TEST_SUITE_BEGIN("paper");

// -- Sessions ------------------------------------------------------------------------------------

TEST_CASE("faults C1: attached again at 0.1, 0.9 and 1.5 of the timeout, here and elsewhere") {
    for (const int permille : {100, 900, 1500}) {
        for (const bool is_elsewhere : {false, true}) {
            CAPTURE(permille);
            CAPTURE(is_elsewhere);
            Ensemble all;
            const std::uint32_t home = all.follower(0), other = all.follower(1);
            const Ticket kept = [&] {
                const Sync zk = all.open(home, seconds(4));
                REQUIRE(zk.create("/e", "", CreateMode::ephemeral));
                return ticket(zk);
            }();
            all.sim.crash(home);
            all.sim.run_for(milliseconds(4 * permille));
            if (!is_elsewhere) all.sim.restart(home);
            if (!is_elsewhere) all.sim.run_for(seconds(1));
            const Result<Session> back = attach(all, is_elsewhere ? other : home, kept);
            const bool is_alive = is_elsewhere ? permille < 1000 : permille < 500;
            if (permille == 900 && !is_elsewhere) continue;  // either, by when it was back
            CHECK(back.error() == (is_alive ? Errc::ok : Errc::session_expired));
            CHECK(all.sees(other, "/e") == is_alive);
        }
    }
}

TEST_CASE("faults C2: an attach races with the expiry: one outcome, which all agree on") {
    int lived = 0, ended = 0;
    for (int late = -400; late <= 400; late += 10) {
        CAPTURE(late);
        Ensemble all(static_cast<std::uint64_t>(late + 1000));
        const std::uint32_t home = all.follower(0), other = all.follower(1);
        const Sync zk = all.open(home, seconds(2));
        REQUIRE(zk.create("/e", "", CreateMode::ephemeral));
        const Ticket kept = ticket(zk);
        all.sim.isolate(home);
        all.sim.run_for(milliseconds(2000 + late));
        const Result<Session> back = attach(all, other, kept);
        CHECK((back || back.error() == Errc::session_expired));
        lived += back ? 1 : 0, ended += back ? 0 : 1;
        all.sim.run_for(milliseconds(300));
        CHECK(is_known(all, kept.id) == bool(back));
        CHECK(all.sees(other, "/e") == bool(back));
        CHECK(all.sees(all.leader(), "/e") == bool(back));
    }
    CHECK(lived > 5);
    CHECK(ended > 5);
}

TEST_CASE("faults C3: two attach the same session: the later one has it, the other is told") {
    Ensemble all;
    const std::uint32_t first = all.follower(0), second = all.follower(1);
    const Sync zk = all.open(first);
    const Ticket kept = ticket(zk);
    std::vector<Errc> ends(2, Errc::system_error);
    std::vector<Session> got;
    for (const std::uint32_t at : {first, second}) {
        Session::attach(all.sim.replica(at), kept.id, kept.password,
                        [&, place = at == first ? 0u : 1u](const Result<Session>& session) {
                            ends[place] = session.error();
                            if (session) got.push_back(*session);
                        });
    }
    all.sim.run_for(seconds(3));
    REQUIRE(!got.empty());
    std::size_t connected = 0;
    for (const Session& each : got) {
        connected += each.state() == SessionState::connected ? 1u : 0u;
        CHECK((each.state() == SessionState::connected || each.state() == SessionState::moved));
    }
    CHECK(connected == 1);
    for (const Errc end : ends) CHECK((end == Errc::ok || end == Errc::session_moved));
    CHECK(zk.session().state() == SessionState::moved);
}

TEST_CASE("faults C4: a session is opened while leaders change: there is one, and no ghost") {
    for (std::uint64_t seed = 1; seed <= 20; seed++) {
        CAPTURE(seed);
        Ensemble all(seed);
        const std::uint32_t home = all.follower(0);
        std::vector<SessionId> opened;
        Session::open(all.sim.replica(home), {seconds(30)}, [&](const Result<Session>& session) {
            REQUIRE(session);
            opened.push_back(session->id());
        });
        all.sim.run_for(coord::microseconds(static_cast<std::int64_t>(seed) * 100));
        const PeerId leader = all.sim.leader();
        if (leader != PeerId{}) all.sim.crash(leader);
        REQUIRE(all.sim.run_until([&] { return !opened.empty(); }, seconds(30)));
        if (leader != PeerId{}) all.sim.restart(leader);
        all.sim.run_for(seconds(3));
        CHECK(opened.size() == 1);
        CHECK(all.sim.replica(all.leader()).machine().sessions().size() == 1);
        CHECK(is_known(all, opened[0]));
    }
}

TEST_CASE("faults C5: a close and a create of an ephemeral node in one poll: it does not stay") {
    Ensemble all;
    const std::uint32_t home = all.follower(0);
    for (const bool close_first : {false, true}) {
        const Sync zk = all.open(home);
        Errc created = Errc::system_error;
        const auto create = [&] {
            zk.session().create("/e", "", CreateMode::ephemeral,
                                [&](const Result<coord::Created>& r) { created = r.error(); });
        };
        if (!close_first) create();
        zk.session().close();
        if (close_first) create();
        all.sim.run_for(seconds(1));
        CHECK(created == (close_first ? Errc::session_expired : Errc::ok));
        for (std::uint32_t id = 1; id <= 3; id++) CHECK_FALSE(all.sees(id, "/e"));
    }
}

TEST_CASE("faults C6: a session that only reads at a follower lives on, for ten of its timeouts") {
    Ensemble all;
    const Sync zk = all.open(all.follower(0), seconds(1));
    std::vector<SessionState> states;
    zk.session().on_state([&](SessionState state) { states.push_back(state); });
    for (int i = 0; i < 100; i++) {
        all.sim.run_for(milliseconds(100));
        REQUIRE(zk.get("/"));
    }
    CHECK(states.empty());
    CHECK(is_known(all, zk.session().id()));
}

TEST_CASE("faults C9: writes under way as leaders change: each has one outcome, and is done once") {
    for (std::uint64_t seed = 1; seed <= 12; seed++) {
        CAPTURE(seed);
        Ensemble all(seed);
        const std::uint32_t home = all.follower(0);
        const Sync zk = all.open(home, seconds(30));
        REQUIRE(zk.create("/n", ""));
        std::vector<Bytes> made;
        std::size_t answered = 0;
        for (int i = 0; i < 40; i++) {
            zk.session().create("/n/x-", std::to_string(i), CreateMode::persistent_sequential,
                                [&](const Result<coord::Created>& r) {
                                    REQUIRE(r);  // nothing fails here, and nothing is unknown
                                    made.push_back(r->path);
                                    answered += 1;
                                });
            if (i == 20) {
                all.sim.run_for(coord::microseconds(static_cast<std::int64_t>(seed) * 50));
                if (all.leader() != home) change_leader(all);
            }
        }
        REQUIRE(all.sim.run_until([&] { return answered == 40; }, seconds(30)));
        const auto children = zk.children("/n");
        REQUIRE(children);
        REQUIRE(children->names.size() == 40);  // none twice
        for (std::size_t i = 0; i < 40; i++) {
            CHECK(made[i] == "/n/" + children->names[i]);
            CHECK(zk.get(made[i])->bytes == std::to_string(i));  // in the order of the calls
        }
    }
}

TEST_CASE("faults C10: a sequential create whose reply is lost makes one node, which is told") {
    Ensemble all;
    const std::uint32_t home = all.follower(0);
    const Sync zk = all.open(home, seconds(30));
    REQUIRE(zk.create("/q", ""));
    Bytes made;
    all.sim.cut(all.leader(), home);  // from here on it hears nothing
    zk.session().create("/q/x-", "", CreateMode::persistent_sequential,
                        [&](const Result<coord::Created>& r) {
                            REQUIRE(r);
                            made = r->path;
                        });
    const auto is_done = [&] { return all.sees(all.leader(), "/q/x-0000000000"); };
    REQUIRE(all.sim.run_until(is_done, seconds(5)));
    all.sim.run_for(seconds(1));
    CHECK(made.empty());
    all.sim.heal();
    change_leader(all);
    all.sim.heal();
    REQUIRE(all.sim.run_until([&] { return !made.empty(); }, seconds(10)));
    CHECK(made == "/q/x-0000000000");
    CHECK(zk.children("/q")->names == std::vector<Bytes>{"x-0000000000"});
}

// -- Watches -------------------------------------------------------------------------------------

TEST_CASE("faults C11, ZooKeeper F3: what changes while a replica is cut off its watchers hear") {
    Ensemble all;
    const std::uint32_t home = all.follower(0), other = all.follower(1);
    const Sync zk = all.open(home, seconds(60)), writer = all.open(other, seconds(60));
    REQUIRE(writer.create("/a", "0"));
    REQUIRE(zk.sync());
    std::string heard;
    const auto listen = [&](const WatchEvent& event) { heard += text_of(event); };
    REQUIRE(zk.get("/a", listen));
    REQUIRE(zk.children("/a", {}, listen));
    CHECK_FALSE(zk.exists("/b", listen));
    all.sim.isolate(home);
    all.sim.run_for(seconds(1));
    REQUIRE(writer.set("/a", "1"));
    REQUIRE(writer.set("/a", "2"));
    REQUIRE(writer.create("/a/x", ""));
    REQUIRE(writer.create("/b", ""));
    CHECK(heard == "");
    all.sim.heal();
    change_leader(all);
    REQUIRE(zk.sync());
    CHECK(heard == "data_changed /a, children_changed /a, created /b, ");
    CHECK(zk.get("/a")->bytes == "2");
}

TEST_CASE("faults C11: a change by one's own write, and in a multi, is heard before the answer") {
    Alone alone;
    const Sync zk = alone.open();
    REQUIRE(zk.create("/a", "0"));
    std::string heard;
    const auto listen = [&](const WatchEvent& event) { heard += text_of(event); };
    REQUIRE(zk.get("/a", listen));
    zk.session().set("/a", "1", [&](const Result<coord::Stat>& r) {
        heard += r ? "set, " : "?";
    });
    alone.polls();
    CHECK(heard == "data_changed /a, set, ");
    heard.clear();
    REQUIRE(zk.get("/a", listen));
    REQUIRE(zk.children("/a", {}, listen));
    zk.session().multi({coord::Op::set("/a", "2"), coord::Op::create("/a/b", "")},
                       [&](const coord::Multi& multi) {
                           heard += multi.error == Errc::ok ? "multi, " : "?";
                       });
    alone.polls();
    CHECK(heard == "data_changed /a, children_changed /a, multi, ");
}

// There what stays hears nothing of what it has missed; and what is set again goes by a zxid that
// events do not carry.
TEST_CASE("ZooKeeper F2, F4 (1412, 1667): watchers set again as of the last event miss nothing") {
    Ensemble all;
    const std::uint32_t home = all.follower(0), other = all.follower(1);
    const Sync zk = all.open(home, seconds(60)), writer = all.open(other, seconds(60));
    for (const char* path : {"/a", "/b", "/c"}) REQUIRE(writer.create(path, "0"));
    REQUIRE(zk.sync());
    std::string heard;
    Zxid seen = zk.get("/")->zxid;
    const auto listen = [&](const WatchEvent& event) {
        heard += text_of(event), seen = event.zxid;
    };
    for (const char* path : {"/a", "/b", "/c"}) {
        REQUIRE(zk.add_watch(path, coord::AddWatchMode::persistent, listen));
    }
    const auto first = writer.set("/a", "1");
    REQUIRE(first);
    REQUIRE(zk.sync());
    CHECK(heard == "data_changed /a, ");
    CHECK(seen == first->mzxid);  // and not 0, or -1
    heard.clear();
    const Ticket kept = ticket(zk);
    all.sim.crash(home);  // nobody hears of the next three
    REQUIRE(writer.set("/b", "1"));
    REQUIRE(writer.remove("/c"));
    REQUIRE(writer.create("/c", "2"));
    const Result<Session> moved = attach(all, other, kept);
    REQUIRE(moved);
    const Sync again(*moved, all.sim.pump());
    const Zxid last = seen;
    for (const char* path : {"/a", "/b", "/c"}) {
        REQUIRE(again.watch_since(last, coord::Watched::persistent, path, listen));
    }
    CHECK(heard == "data_changed /b, created /c, ");  // and of /a nothing twice
    REQUIRE(writer.set("/a", "2"));
    REQUIRE(again.sync());
    CHECK(heard == "data_changed /b, created /c, data_changed /a, ");
}

TEST_CASE("ZooKeeper F7 (4475): who watches all below a node hears of no children changed") {
    Ensemble all;
    const Sync zk = all.open(all.follower(0)), writer = all.open(all.follower(1));
    REQUIRE(writer.create("/a", ""));
    REQUIRE(zk.sync());
    std::string heard;
    const auto listen = [&](const WatchEvent& event) { heard += text_of(event); };
    REQUIRE(zk.add_watch("/a", coord::AddWatchMode::persistent_recursive, listen));
    REQUIRE(writer.create("/a/b", ""));
    REQUIRE(writer.create("/a/b/c", ""));
    REQUIRE(writer.set("/a/b", "1"));
    REQUIRE(writer.remove("/a/b/c"));
    REQUIRE(zk.sync());
    CHECK(heard == "created /a/b, created /a/b/c, data_changed /a/b, deleted /a/b/c, ");
    // With one that is told of children beside it, each hears what is its own.
    heard.clear();
    REQUIRE(zk.children("/a/b", {}, listen));
    REQUIRE(writer.create("/a/b/d", ""));
    REQUIRE(zk.sync());
    CHECK(heard == "created /a/b/d, children_changed /a/b, ");
}

TEST_CASE("faults C12, ZooKeeper F1: a node comes and goes while its watcher is cut off") {
    Ensemble all;
    const std::uint32_t home = all.follower(0), other = all.follower(1);
    const Sync zk = all.open(home, seconds(60)), writer = all.open(other, seconds(60));
    std::string heard;
    CHECK_FALSE(zk.exists("/x", [&](const WatchEvent& event) { heard += text_of(event); }));
    all.sim.isolate(home);
    all.sim.run_for(seconds(1));
    REQUIRE(writer.create("/x", ""));
    REQUIRE(writer.remove("/x"));
    all.sim.heal();
    REQUIRE(zk.sync());
    CHECK(heard == "created /x, ");  // it follows the log: nothing is skipped, unlike there
}

TEST_CASE("faults C13, ZooKeeper F10: the watches of a session that has ended are gone") {
    coord::ReplicaOptions options;
    options.limits.watches_per_session_max = 100000;
    options.limits.requests_per_session_max = 200000;
    Alone alone(options);
    const Sync other = alone.open(), zk = alone.open();
    REQUIRE(other.create("/n", ""));
    REQUIRE(other.exists("/n", [](const WatchEvent&) {}));
    int told = 0;
    const auto token = std::make_shared<int>(0);
    for (int i = 0; i < 100000; i++) {
        const auto listen = [&told, token](const WatchEvent&) { told += 1; };
        zk.session().exists("/n" + std::to_string(i % 1000), listen, {});
        if (i % 1000 == 0) alone.poll();
    }
    alone.polls();
    REQUIRE(alone.replica.status().watches == 100001);
    REQUIRE(zk.close());
    alone.polls();
    CHECK(alone.replica.status().watches == 1);
    CHECK(token.use_count() == 1);
    CHECK(told == 0);
}

TEST_CASE("ZooKeeper F8 (ZOOKEEPER-1910): removing one watcher leaves those of others alone") {
    Alone alone;
    const Sync one = alone.open(), two = alone.open();
    REQUIRE(one.create("/a", ""));
    std::string heard;
    const auto name = [&](const char* who) {
        return [&heard, who](const WatchEvent& event) {
            if (static_cast<int>(event.type) < 5) heard += who;
        };
    };
    REQUIRE(one.get("/a", name("one data ")));
    REQUIRE(one.children("/a", {}, name("one children ")));
    REQUIRE(two.get("/a", name("two data ")));
    REQUIRE(one.remove_watches("/a", coord::WatcherType::data));
    REQUIRE(two.set("/a", "1"));
    REQUIRE(two.create("/a/b", ""));
    CHECK(heard == "two data one children ");
}

TEST_CASE("ZooKeeper F11: every read and every event has an exact zxid") {
    Alone alone;
    const Sync zk = alone.open();
    REQUIRE(zk.create("/a", "0"));
    Zxid read, event_at;
    const auto data = zk.get("/a", [&](const WatchEvent& event) { event_at = event.zxid; });
    REQUIRE(data);
    read = data->zxid;
    const auto set = zk.set("/a", "1");
    REQUIRE(set);
    CHECK(event_at == set->mzxid);
    CHECK(read < event_at);
    const auto again = zk.get("/a");
    CHECK(again->zxid >= event_at);
    CHECK(again->stat.mzxid == event_at);
}

// -- Recipes -------------------------------------------------------------------------------------

TEST_CASE("faults C21: many wait for a lock, one release wakes one of them") {
    Alone alone;
    const Sync zk = alone.open();
    std::vector<std::unique_ptr<coord::Lock>> locks;
    int granted = 0;
    for (int i = 0; i < 300; i++) {
        locks.push_back(std::make_unique<coord::Lock>(zk.session(), "/lock"));
        locks.back()->acquire([&](const Result<coord::Grant>& grant) {
            REQUIRE(grant);
            granted += 1;
        });
        alone.polls(2);
    }
    alone.polls(20);
    REQUIRE(granted == 1);
    const std::uint64_t events = alone.replica.counters().events;
    const Zxid applied = alone.replica.status().applied;
    locks[0]->release();
    alone.polls(20);
    CHECK(granted == 2);
    CHECK(alone.replica.counters().events - events <= 2);  // of the one before, and its own node
    CHECK(alone.replica.status().applied.value - applied.value <= 2);
}

TEST_CASE("faults C24: a leader that is cut off with its clients: writes wait, reads are marked") {
    Ensemble all;
    const std::uint32_t old = all.leader();
    const Sync inside = all.open(old, seconds(3)), outside = all.open(all.follower(0), seconds(30));
    REQUIRE(inside.create("/n", "0"));
    all.sim.isolate(old);
    std::vector<Errc> answers;
    inside.session().set("/n", "lost?", [&](const Result<coord::Stat>& r) {
        answers.push_back(r.error());
    });
    std::vector<Errc> reads;
    inside.session().linearizable().get("/n", [&](const Result<coord::Data>& r) {
        reads.push_back(r.error());
    });
    const coord::Time certain = inside.session().certain_until();
    REQUIRE(all.sim.run_until([&] { return all.leader() != 0 && all.leader() != old; },
                              seconds(20)));
    REQUIRE(outside.set("/n", "1"));
    CHECK(answers.empty());
    CHECK(reads.empty());  // nothing old is called new
    // It has heard nobody for as long as they have not heard it, and looks when it would ping.
    CHECK(all.sim.run_until(
        [&] { return inside.session().state() == SessionState::suspended; }, milliseconds(100)));
    all.sim.run_for(seconds(5));
    CHECK(all.sim.clock(old) > certain);
    CHECK_FALSE(is_known(all, inside.session().id()));
    all.sim.heal();
    REQUIRE(all.sim.run_until([&] { return answers.size() == 1 && reads.size() == 1; },
                              seconds(10)));
    CHECK(answers[0] == Errc::session_expired);
    CHECK(reads[0] == Errc::session_expired);
    CHECK(outside.get("/n")->bytes == "1");
}

// -- Load ----------------------------------------------------------------------------------------

TEST_CASE("faults L1: a flood from one session does not keep another's writes waiting") {
    Ensemble all;
    const Sync flood = all.open(all.follower(0), seconds(30));
    const Sync calm = all.open(all.follower(1), seconds(30));
    REQUIRE(calm.create("/n", ""));
    std::size_t under_way = 0, written = 0, refused = 0;
    for (int turn = 0; turn < 200; turn++) {
        for (int i = 0; i < 100; i++) {
            under_way += 1;
            flood.session().set("/n", Bytes(1000, 'x'), [&](const Result<coord::Stat>& r) {
                under_way -= 1;
                written += r ? 1u : 0u;
                refused += r.error() == Errc::too_many ? 1u : 0u;
            });
        }
        all.sim.run_for(milliseconds(1));
    }
    const coord::Time asked = all.sim.now();
    REQUIRE(calm.set("/n", "calm"));
    CHECK(all.sim.now() - asked < milliseconds(100));  // virtual time
    REQUIRE(all.sim.run_until([&] { return under_way == 0; }, seconds(10)));
    CHECK(written + refused == 20000);
    CHECK(written > 0);
}

TEST_CASE("faults L2: all sessions come back in one tick: each is there, none is ended") {
    Ensemble all;
    std::vector<Sync> sessions;
    for (int i = 0; i < 200; i++) sessions.push_back(all.open(all.follower(0), seconds(20)));
    const std::uint32_t home = all.follower(0), other = all.follower(1);
    std::vector<Ticket> tickets;
    for (const Sync& zk : sessions) tickets.push_back(ticket(zk));
    all.sim.crash(home);
    sessions.clear();
    all.sim.run_for(seconds(2));
    std::size_t back = 0;
    for (const Ticket& each : tickets) {
        Session::attach(all.sim.replica(other), each.id, each.password,
                        [&](const Result<Session>& session) { back += session ? 1u : 0u; });
    }
    REQUIRE(all.sim.run_until([&] { return back == tickets.size(); }, seconds(5)));
    all.sim.run_for(seconds(30));
    CHECK(all.sim.replica(all.leader()).machine().sessions().size() == tickets.size());
    CHECK(all.sim.replica(other).counters().requests_repeated < 1000);
}

TEST_CASE("faults L3: a bound that is reached: what frees, reads and signs of life go on") {
    Ensemble all([] {
        coord::SimulationOptions options = Ensemble::options(1);
        options.replica.limits.nodes_max = 20;
        options.replica.limits.sessions_max = 2;
        return options;
    }());
    const std::uint32_t home = all.follower(0), other = all.follower(1);
    const Sync zk = all.open(home, seconds(2)), second = all.open(home, seconds(2));
    Errc error = Errc::ok;
    int made = 0;
    for (; error == Errc::ok && made < 50; made++) {
        error = zk.create("/n" + std::to_string(made), "").error();
    }
    CHECK(error == Errc::too_many);
    CHECK(made < 20);
    CHECK(Sync::open(all.sim.replica(home), {seconds(2)}, all.sim.pump()).error() ==
          Errc::too_many);
    all.sim.run_for(seconds(10));
    CHECK(zk.session().state() == SessionState::connected);
    CHECK(zk.get("/n0"));
    CHECK(zk.set("/n0", "1"));
    CHECK(zk.remove("/n1"));
    CHECK(zk.create("/n1", ""));
    CHECK(second.close());
    CHECK(attach(all, other, ticket(zk)));
    CHECK(Sync::open(all.sim.replica(home), {seconds(2)}, all.sim.pump()));
}

TEST_CASE("faults L4: a bound that only one replica has: what is numbered is done by all alike") {
    coord::SimulationOptions options = Ensemble::options(1);
    Ensemble all(options);
    const Sync zk = all.open(all.follower(0), seconds(30));
    const Bytes large(1024 * 1024, 'x');
    CHECK(zk.create("/large", large).error() == Errc::too_large);  // judged before it is numbered
    for (int i = 0; i < 10; i++) REQUIRE(zk.create("/n" + std::to_string(i), Bytes(20000, 'x')));
    all.sim.run_for(seconds(1));
    const std::uint64_t digest = all.sim.replica(1).status().digest;
    CHECK(all.sim.replica(2).status().digest == digest);
    CHECK(all.sim.replica(3).status().digest == digest);
}

TEST_CASE("faults L6: requests at their limits, above, and far above: refused, and all goes on") {
    coord::ReplicaOptions options;
    options.limits.data_bytes_max = 1000;
    options.limits.multi_parts_max = 10;
    options.limits.ephemerals_per_session_max = 50;
    Alone alone(options);
    const Sync zk = alone.open();
    const Zxid before = alone.replica.status().last;
    CHECK(zk.create("/a", Bytes(1001, 'x')).error() == Errc::too_large);
    CHECK(zk.create("/a", Bytes(20000000, 'x')).error() == Errc::too_large);
    const auto multi = [&](std::size_t parts) {
        std::vector<coord::Op> ops;
        for (std::size_t i = 0; i < parts; i++) ops.push_back(coord::Op::check("/"));
        return zk.multi(ops).error;
    };
    CHECK(multi(11) == Errc::too_many);
    CHECK(multi(100000) == Errc::too_many);
    CHECK(alone.replica.status().last == before);  // nothing of it was numbered
    CHECK(zk.create("/a", Bytes(1000, 'x')));
    CHECK(multi(10) == Errc::ok);
    // The end of a session is one transaction, and bounded by what it may own.
    int made = 0;
    while (made < 100 && zk.create("/e", "", CreateMode::ephemeral_sequential)) made += 1;
    CHECK(made == 50);
    CHECK(zk.create("/e", "", CreateMode::ephemeral_sequential).error() == Errc::too_many);
    CHECK(zk.create("/p", ""));
    const Zxid last = alone.replica.status().last;
    REQUIRE(zk.close());
    alone.polls();
    CHECK(alone.replica.status().last.value == last.value + 1);
    CHECK(alone.replica.status().nodes == 4 + 2);
}

TEST_CASE("faults L9: what gave up waiting leaves nothing behind, once its answer has come") {
    const auto token = std::make_shared<int>(0);
    {
        Ensemble all;
        const Sync zk = all.open(all.follower(0), seconds(30));
        all.sim.isolate(all.follower(0));
        for (int i = 0; i < 20; i++) {
            zk.session().create("/n", "", [token](const Result<coord::Created>&) {});
            Sync brief(zk.session(), [left = 3]() mutable { return left-- > 0; });
            CHECK(brief.create("/m", "").error() == Errc::operation_timeout);
        }
        CHECK(token.use_count() == 21);
        all.sim.heal();
        REQUIRE(zk.sync());
        all.sim.run_for(seconds(1));
        CHECK(token.use_count() == 1);
        zk.session().get("/n", [token](const Result<coord::Data>&) {});
    }
    CHECK(token.use_count() == 1);  // and what was asked is dropped with its replica
}

TEST_CASE("faults L10: a day without work: nothing grows, nobody is elected, all stay") {
    Ensemble all;
    const Sync zk = all.open(all.follower(0), seconds(10));
    REQUIRE(zk.create("/e", "", CreateMode::ephemeral));
    all.sim.run_for(seconds(60));
    const coord::ReplicaStatus before = all.sim.replica(all.leader()).status();
    const std::uint64_t elections = all.sim.replica(1).counters().elections;
    const Zxid first = all.sim.replica(all.leader()).log().last().zxid;
    all.sim.run_for(seconds(24 * 3600));
    const coord::ReplicaStatus after = all.sim.replica(all.leader()).status();
    CHECK(after.epoch == before.epoch);
    CHECK(after.digest == before.digest);
    CHECK(all.sim.replica(1).counters().elections == elections);
    CHECK(all.sim.replica(all.leader()).log().last().zxid == first);
    CHECK(zk.session().state() == SessionState::connected);
}

// -- Hostile input -------------------------------------------------------------------------------

TEST_CASE("faults H6: paths that are none: bad_arguments to every call, and nothing is numbered") {
    Alone alone;
    const Sync zk = alone.open();
    REQUIRE(zk.create("/a", ""));
    const Zxid before = alone.replica.status().last;
    const std::vector<Bytes> paths = {"",     "a",      "//",      "/a/",     "/a//b", "/.",
                                      "/..",  "/a/../b", "/a/./b",  Bytes("/a\0b", 4),
                                      "/\xff", "/\xc0\x80", "/\xed\xa0\x80", "/a\n"};
    for (const Bytes& path : paths) {
        CAPTURE(path);
        CHECK(zk.create(path, "").error() == Errc::bad_arguments);
        CHECK(zk.set(path, "").error() == Errc::bad_arguments);
        CHECK(zk.remove(path).error() == Errc::bad_arguments);
        CHECK_FALSE(zk.get(path));
        CHECK_FALSE(zk.exists(path));
        CHECK_FALSE(zk.children(path));
    }
    CHECK(zk.create("/" + Bytes(1024 * 1024, 'x'), "").error() == Errc::too_large);
    CHECK(alone.replica.status().last == before);
    CHECK(zk.remove("/").error() == Errc::bad_arguments);
    for (const char* path : {"/zookeeper", "/zookeeper/config", "/zookeeper/quota"}) {
        CHECK(zk.remove(path).error() == Errc::bad_arguments);
    }
    CHECK(zk.create("/zookeeper/own", ""));  // as there
}

TEST_CASE("faults H8: a session with a wrong password, or one that never was: refused, unharmed") {
    Ensemble all;
    const std::uint32_t home = all.follower(0), other = all.follower(1);
    const Sync zk = all.open(home);
    Ticket kept = ticket(zk);
    for (int bit = 0; bit < 128; bit += 9) {
        Ticket wrong = kept;
        (bit < 64 ? wrong.password.high : wrong.password.low) ^= std::uint64_t{1} << bit % 64;
        CHECK(attach(all, other, wrong).error() == Errc::auth_failed);
    }
    CHECK(attach(all, other, {SessionId{kept.id.value + 1}, kept.password}).error() ==
          Errc::session_expired);
    CHECK(zk.session().state() == SessionState::connected);
    CHECK(zk.create("/still", "here"));
    CHECK(attach(all, other, kept));
}

// -- ZooKeeper's own bugs ------------------------------------------------------------------------

TEST_CASE("ZooKeeper D3 (ZOOKEEPER-3471): a close and writes queued at once leave no node") {
    for (std::uint64_t seed = 1; seed <= 10; seed++) {
        CAPTURE(seed);
        Ensemble all(seed);
        const std::uint32_t home = all.follower(0), other = all.follower(1);
        const Sync zk = all.open(home);
        for (int i = 0; i < 5; i++) {
            zk.session().create("/e" + std::to_string(i), "", CreateMode::ephemeral, {});
        }
        zk.session().close();
        zk.session().create("/late", "", CreateMode::ephemeral, {});
        change_leader(all);
        all.sim.run_for(seconds(10));
        for (int i = 0; i < 5; i++) CHECK_FALSE(all.sees(other, "/e" + std::to_string(i)));
        CHECK_FALSE(all.sees(other, "/late"));
        CHECK_FALSE(is_known(all, zk.session().id()));
    }
}

TEST_CASE("ZooKeeper D4 (ZOOKEEPER-710): of two attaches one stays, however slow the other is") {
    Ensemble all;
    const std::uint32_t first = all.follower(0), second = all.follower(1);
    const Sync zk = all.open(all.leader(), seconds(20));
    const Ticket kept = ticket(zk);
    std::vector<Session> slow;
    Session::attach(all.sim.replica(first), kept.id, kept.password,
                    [&](const Result<Session>& r) {
                        if (r) slow.push_back(*r);
                    });
    all.sim.isolate(first);  // its request may or may not be on the way
    const Result<Session> quick = attach(all, second, kept);
    REQUIRE(quick);
    all.sim.heal();
    all.sim.run_for(seconds(5));
    const Sync again(*quick, all.sim.pump());
    const bool is_ours = again.session().state() == SessionState::connected;
    const bool is_theirs = !slow.empty() && slow[0].state() == SessionState::connected;
    CHECK(is_ours != is_theirs);  // and whoever has it can use it, at once and for good
    CHECK((is_ours ? again : Sync(slow[0], all.sim.pump())).create("/n", ""));
    CHECK(is_known(all, kept.id));
}

// Curator let the writer in that had waited: the number of a reader's own is higher (CURATOR-621).
TEST_CASE("C19: a writer's lock becomes a reader's, with a writer waiting, and leaders that die") {
    for (std::uint64_t seed = 1; seed <= 6; seed++) {
        INFO("seed " << seed);
        Ensemble all(seed);
        const std::uint32_t home = all.follower(0);
        coord::ReadWriteLock holder(all.open(home, seconds(30)).session(), "/lock");
        coord::ReadWriteLock writer(all.open(all.follower(1), seconds(30)).session(), "/lock");
        coord::ReadWriteLock reader(all.open(home, seconds(30)).session(), "/lock");
        const Sync zk = all.open(home, seconds(30));
        using coord::Access;
        using coord::Grant;
        const auto first = zk.wait<Grant>([&](auto done) { holder.acquire(Access::write, done); });
        REQUIRE(first);
        int writes = 0;
        const auto on_written = [&](const Result<Grant>& grant) { writes += grant ? 1 : 100; };
        writer.acquire(Access::write, on_written);
        all.sim.run_for(seconds(1));
        all.sim.crash_at_send(all.leader(), static_cast<std::uint32_t>(seed % 4));
        const auto shared = zk.wait<Grant>([&](auto done) { holder.downgrade(done); });
        REQUIRE(shared);
        all.sim.run_for(seconds(5));
        CHECK(writes == 0);
        CHECK(holder.is_held(all.sim.clock(home)));
        reader.acquire(Access::read, {});  // behind the writer
        all.sim.run_for(seconds(1));
        CHECK(reader.fencing_token() == 0);
        holder.release();
        REQUIRE(all.sim.run_until([&] { return writes != 0; }, seconds(20)));
        CHECK(writes == 1);
        CHECK(writer.fencing_token() > shared->fencing_token);
        CHECK(reader.fencing_token() == 0);
    }
}

// Curator took any event, that of a connection too, for the one that it waited for (GH-1290).
TEST_CASE("C20: connections that come and go, and changes, let no member of a barrier in early") {
    Ensemble all;
    const std::uint32_t home = all.follower(0);
    const Sync zk = all.open(all.leader(), seconds(60));
    int entered = 0;
    const auto on_entered = [&](const Result<void>& done) { entered += done ? 1 : 100; };
    coord::DoubleBarrier first(all.open(home, seconds(60)).session(), "/b", 3);
    coord::DoubleBarrier second(all.open(all.follower(1), seconds(60)).session(), "/b", 3);
    coord::DoubleBarrier third(all.open(home, seconds(60)).session(), "/b", 3);
    first.enter(on_entered);
    second.enter_for(seconds(600), on_entered);
    all.sim.run_for(seconds(1));
    for (int i = 0; i < 4; i++) {
        all.sim.isolate(home);
        REQUIRE(zk.set("/b", "x"));
        REQUIRE(zk.create("/b/x", ""));
        REQUIRE(zk.remove("/b/x"));
        all.sim.run_for(seconds(3));
        all.sim.heal();
        REQUIRE(zk.multi({coord::Op::create("/b/ready", ""), coord::Op::remove("/b/ready")}));
        all.sim.run_for(seconds(3));
        CHECK(entered == 0);
    }
    change_leader(all);
    all.sim.run_for(seconds(3));
    CHECK(entered == 0);
    third.enter(on_entered);
    REQUIRE(all.sim.run_until([&] { return entered == 3; }, seconds(20)));
}

TEST_CASE("ZooKeeper D6: the nodes of a session that has expired, and a read of what is new") {
    Ensemble all;
    const std::uint32_t home = all.follower(0), other = all.follower(1);
    const Sync dead = all.open(home, seconds(2)), zk = all.open(other, seconds(30));
    REQUIRE(dead.create("/e", "", CreateMode::ephemeral));
    all.sim.crash(home);
    REQUIRE(all.sim.run_until([&] { return !all.sees(all.leader(), "/e"); }, seconds(10)));
    CHECK(zk.linearizable().exists("/e").error() == Errc::no_node);  // a plain read may be late
}

// There the kind of a node is in the bits of its owner, and an id can look like one.
TEST_CASE("ZooKeeper D11 (1622, 3113, 2901): an id with its highest bits set owns what it makes") {
    Ensemble all;
    const std::uint32_t home = all.follower(0);
    coord::SessionOptions options;
    options.timeout = seconds(2), options.is_local = true;
    const Result<Session> opened = Sync::open(all.sim.replica(home), options, all.sim.pump());
    REQUIRE(opened);
    REQUIRE(opened->id().value > UINT64_MAX / 2);
    const Sync zk(*opened, all.sim.pump()), other = all.open(all.follower(1), seconds(60));
    const auto made = zk.create("/e", "", CreateMode::ephemeral);
    REQUIRE(made);
    CHECK(made->stat.ephemeral_owner == opened->id());
    REQUIRE(zk.create("/c", "", CreateMode::container));
    REQUIRE(zk.create("/p", ""));
    CHECK(zk.create("/e/x", "").error() == Errc::no_children_for_ephemerals);
    REQUIRE(other.sync());
    for (const char* path : {"/c", "/p"}) {
        CHECK(other.exists(path)->ephemeral_owner == SessionId{});
    }
    CHECK(other.exists("/e")->ephemeral_owner == opened->id());
    all.sim.crash(home);
    REQUIRE(all.sim.run_until([&] { return !all.sees(all.leader(), "/e"); }, seconds(10)));
    CHECK(all.sees(all.leader(), "/p"));
    CHECK_FALSE(is_known(all, opened->id()));
}

TEST_SUITE_END();
