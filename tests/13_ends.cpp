// Chapters 12 and 13: how writes end with their session, or with their replica: what has not been
// executed and never will be, and what is in doubt. And what an operator asks of a replica.

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

#include "session_rig.hpp"
#include "support.hpp"

namespace {

using coord::Bytes;
using coord::CreateMode;
using coord::Errc;
using coord::OpCode;
using coord::Replica;
using coord::seconds;
using coord::Session;
using coord::SessionState;
using coord::Sync;
using coord::Unresolved;
using session_rig::Alone;
using Errcs = std::vector<Errc>;
using Lines = std::vector<std::string>;

Lines lines(const std::vector<Unresolved>& all) {
    Lines result;
    std::uint64_t last = 0;
    for (const Unresolved& one : all) {
        CHECK(one.cxid > last);  // in the order in which they were asked for
        last = one.cxid;
        result.push_back(std::to_string(static_cast<int>(one.op)) + " " + one.path);
    }
    return result;
}

// Three voters, and a session at one of them that asks for writes and is cut off.
struct Ends : session_rig::Ensemble {
    const std::uint32_t at = follower(0), elsewhere = follower(1);
    const Sync other = open(elsewhere, seconds(600));
    const Sync zk;
    Errcs ends;

    explicit Ends(bool is_log_kept, coord::Duration timeout = seconds(2))
        : Ends(options(is_log_kept), timeout) {}
    Ends(const coord::SimulationOptions& options, coord::Duration timeout)
        : session_rig::Ensemble(options), zk(open(at, timeout)) {
        REQUIRE(zk.create("/n", ""));
        REQUIRE(zk.session().unresolved().empty());
    }
    static coord::SimulationOptions options(bool is_log_kept) {
        coord::SimulationOptions result = session_rig::Ensemble::options(1);
        result.replica.snapshot_every_entries = is_log_kept ? 100000 : 50;
        if (!is_log_kept) result.replica.log_entries_kept = 2;
        return result;
    }
    void create(const char* path) {
        zk.session().create(path, "", [this](const coord::Result<coord::Created>& created) {
            ends.push_back(created.error());
        });
    }
    // The leader numbers the writes that have been asked for, and nobody hears of it here.
    void cut_off_when_numbered() {
        Replica& leads = sim.replica(leader());
        const coord::Zxid before = leads.log().last().zxid;
        REQUIRE(sim.run_until([&] { return before < leads.log().last().zxid; }, seconds(5)));
        sim.isolate(at);
    }
    // So much happens meanwhile that where the log is not kept a snapshot is all that is left.
    void much_happens() {
        sim.run_for(seconds(5));
        REQUIRE(other.create("/m", ""));
        for (int i = 0; i < 500; i++) REQUIRE(other.set("/m", std::to_string(i)));
    }
    void come_back(std::uint64_t snapshots) {
        sim.heal();
        sim.run_for(seconds(5));
        CHECK(sim.replica(at).counters().snapshots_installed == snapshots);
    }
    bool is_there(const char* path) { return sees(elsewhere, path) && sees(at, path); }
    bool is_nowhere(const char* path) { return !sees(elsewhere, path) && !sees(at, path); }
};

}  // namespace

TEST_SUITE("13 ends") {

TEST_CASE("R13 an expiry that is applied leaves nothing in doubt") {
    Ends rig(true);
    rig.create("/n/a"), rig.create("/n/b");
    rig.cut_off_when_numbered();
    rig.create("/n/c");
    rig.sim.run_for(seconds(0) + coord::milliseconds(50));  // sent, to nobody
    CHECK(lines(rig.zk.session().unresolved()) == Lines{"3 /n/a", "3 /n/b", "3 /n/c"});
    rig.much_happens();
    CHECK(rig.ends.empty());
    CHECK(rig.zk.session().unresolved().size() == 3);
    rig.come_back(0);
    CHECK(rig.ends == Errcs{Errc::ok, Errc::ok, Errc::session_expired});
    CHECK(rig.zk.session().state() == SessionState::expired);
    CHECK(rig.zk.session().unresolved().empty());
    CHECK(rig.is_there("/n/a"));
    CHECK(rig.is_there("/n/b"));
    CHECK(rig.is_nowhere("/n/c"));
}

TEST_CASE("R13 an end inside a snapshot leaves in doubt what had left, and nothing else") {
    Ends rig(false);
    rig.create("/n/a"), rig.create("/n/b");
    rig.zk.session().multi({coord::Op::create("/n/m", "")}, [&](const coord::Multi& multi) {
        rig.ends.push_back(multi.error);
    });
    rig.cut_off_when_numbered();
    rig.create("/n/c");
    rig.much_happens();
    rig.create("/n/d");  // it has no leader: this one waits here
    rig.zk.session().create("bad", "", [&](const coord::Result<coord::Created>& created) {
        rig.ends.push_back(created.error());
    });
    rig.sim.run_for(seconds(1));
    const Lines doubts = {"3 /n/a", "3 /n/b", "7 ", "3 /n/c"};
    CHECK(lines(rig.zk.session().unresolved()) == doubts);
    rig.come_back(1);
    CHECK(rig.ends == Errcs{Errc::outcome_unknown, Errc::outcome_unknown, Errc::outcome_unknown,
                            Errc::outcome_unknown, Errc::session_expired, Errc::session_expired});
    CHECK(rig.zk.session().state() == SessionState::expired);
    CHECK(lines(rig.zk.session().unresolved()) == doubts);
    CHECK(lines(rig.sim.replica(rig.at).unresolved(rig.zk.session().id())) == doubts);
    CHECK(rig.sim.replica(rig.at).unresolved(rig.other.session().id()).empty());
    CHECK(rig.is_there("/n/a"));
    CHECK(rig.is_there("/n/m"));
    CHECK(rig.is_nowhere("/n/c"));
    CHECK(rig.is_nowhere("/n/d"));
    // C5: a handle below a path is shown no path that is elsewhere.
    CHECK(lines(rig.zk.session().below("/n").unresolved()) == Lines{"3 /a", "3 /b", "7 ", "3 /c"});
    CHECK(lines(rig.zk.session().below("/n/a").unresolved()) == Lines{"3 /", "3 ", "7 ", "3 "});
    CHECK(lines(rig.zk.session().below("/").unresolved()) == doubts);
}

TEST_CASE("R13 a move that is applied leaves nothing in doubt; one inside a snapshot does") {
    for (const bool is_log_kept : {true, false}) {
        Ends rig(is_log_kept, seconds(60));
        const coord::SessionPassword password = rig.zk.session().password();
        rig.create("/n/a");
        rig.cut_off_when_numbered();
        rig.create("/n/b");
        const auto attached = Sync::attach(rig.sim.replica(rig.elsewhere), rig.zk.session().id(),
                                           password, rig.sim.pump());
        REQUIRE(attached);
        rig.much_happens();
        rig.come_back(is_log_kept ? 0 : 1);
        const Errc doubt = Errc::outcome_unknown;
        CHECK(rig.ends == (is_log_kept ? Errcs{Errc::ok, Errc::session_moved}
                                       : Errcs{doubt, doubt}));
        CHECK(rig.zk.session().state() == SessionState::moved);
        CHECK(rig.zk.session().unresolved().size() == (is_log_kept ? 0u : 2u));
        CHECK(attached->unresolved().empty());
        const auto back = Sync::attach(rig.sim.replica(rig.at), attached->id(), password,
                                       rig.sim.pump());
        REQUIRE(back);
        CHECK(back->unresolved().empty());  // they are another holder's
        CHECK(rig.sim.replica(rig.at).unresolved(back->id()).size() == (is_log_kept ? 0u : 2u));
        CHECK(rig.is_there("/n/a"));
        CHECK(rig.is_nowhere("/n/b"));
    }
}

TEST_CASE("R13 a close inside a snapshot is a close, and what was before it is in doubt") {
    Ends rig(false, seconds(60));
    rig.create("/n/a");
    Errc closed = Errc::connection_loss;
    rig.zk.session().close([&](const coord::Result<void>& result) { closed = result.error(); });
    rig.cut_off_when_numbered();
    rig.much_happens();
    rig.come_back(1);
    CHECK(closed == Errc::ok);
    CHECK(rig.ends == Errcs{Errc::outcome_unknown});
    CHECK(lines(rig.zk.session().unresolved()) == Lines{"3 /n/a"});
}

TEST_CASE("R13 a session that goes on over a snapshot has its answers, and none is in doubt") {
    Ends rig(false, seconds(600));
    rig.create("/n/a"), rig.create("/n/b");
    rig.cut_off_when_numbered();
    rig.create("/n/c");
    rig.much_happens();
    rig.come_back(1);
    CHECK(rig.ends == Errcs{Errc::ok, Errc::ok, Errc::ok});
    CHECK(rig.zk.session().unresolved().empty());
    CHECK(rig.is_there("/n/c"));
}

TEST_CASE("R13 R12 an end that is applied behind a snapshot waits for what is in that") {
    coord::SimulationOptions options = Ends::options(false);
    options.replica.limits.data_bytes_max = options.replica.limits.answer_bytes_max = 1000;
    options.replica.limits.path_bytes_max = 200;
    options.replica.limits.requests_per_session_max = 20000;
    Ends rig(options, seconds(60));
    REQUIRE(rig.other.create("/big", Bytes(1000, 'x')));
    REQUIRE(rig.zk.sync());
    rig.create("/n/a");
    std::size_t answered = 0;
    for (int i = 0; i < 10000; i++) {  // more than can be read while the rest of the log comes
        rig.zk.session().get("/big", [&](const coord::Result<coord::Data>& data) {
            answered += data ? 1u : 0u;
        });
    }
    rig.create("/n/b");
    rig.cut_off_when_numbered();
    rig.much_happens();
    REQUIRE(Sync::attach(rig.sim.replica(rig.elsewhere), rig.zk.session().id(),
                         rig.zk.session().password(), rig.sim.pump()));
    rig.come_back(1);
    CHECK(rig.zk.session().state() == SessionState::moved);
    CHECK(answered == 10000);
    CHECK(rig.ends == Errcs{Errc::ok, Errc::ok});
    CHECK(rig.zk.session().unresolved().empty());
    CHECK(rig.is_there("/n/b"));
}

TEST_CASE("R13 a replica that fails leaves in doubt what had left; what waits has not been done") {
    Alone alone;
    const Sync zk = alone.open();
    REQUIRE(zk.create("/a", ""));
    Errcs ends;
    const auto note = [&](const auto& result) { ends.push_back(result.error()); };
    alone.disk.fail();
    zk.session().set("/a", "1", coord::OnStat(note));
    zk.session().get("/a", coord::OnData(note));
    zk.session().remove("/a", coord::OnDone(note));
    CHECK(zk.session().unresolved().empty());  // nothing has left
    alone.polls();
    CHECK(alone.replica.status().role == coord::Role::failed);
    CHECK(ends ==
          Errcs{Errc::outcome_unknown, Errc::replica_failed, Errc::outcome_unknown});
    CHECK(lines(zk.session().unresolved()) == Lines{"5 /a", "4 /a"});
    zk.session().set("/a", "2", coord::OnStat(note));
    alone.polls();
    CHECK(ends.back() == Errc::replica_failed);
    CHECK(zk.session().unresolved().size() == 2);
}

TEST_CASE("R13 what is in doubt is kept within a bound, the newest of it") {
    Alone alone;
    std::vector<Sync> all;
    for (int i = 0; i < 5; i++) all.push_back(alone.open());
    alone.disk.fail();
    std::size_t unknown = 0;
    for (const Sync& zk : all) {
        for (int i = 0; i < 1000; i++) {
            zk.session().set("/", "", [&](const coord::Result<coord::Stat>& set) {
                unknown += set.error() == Errc::outcome_unknown ? 1u : 0u;
            });
        }
    }
    alone.polls();
    CHECK(unknown == 5000);
    std::size_t kept = 0;
    for (const Sync& zk : all) kept += zk.session().unresolved().size();
    CHECK(kept == Replica::unresolved_max);
    CHECK(all.front().session().unresolved().size() == Replica::unresolved_max - 4000);
    CHECK(all.back().session().unresolved().size() == 1000);
}

TEST_CASE("R13 a lock that waits for its node as its session ends says how that ended") {
    for (const bool is_moved : {false, true}) {
        Ends rig(false, seconds(is_moved ? 60 : 2));
        coord::Lock lock(rig.zk.session(), "/lock");
        Errcs told;
        lock.acquire([&](const coord::Result<coord::Grant>& grant) {
            told.push_back(grant.error());
        });
        rig.cut_off_when_numbered();
        if (is_moved) {
            REQUIRE(Sync::attach(rig.sim.replica(rig.elsewhere), rig.zk.session().id(),
                                 rig.zk.session().password(), rig.sim.pump()));
        }
        rig.much_happens();
        rig.come_back(1);
        CHECK(told == Errcs{is_moved ? Errc::session_moved : Errc::session_expired});
    }
}

TEST_CASE("K1 a lock that is released before its node is known says that this may be there") {
    Ends rig(true, seconds(60));
    REQUIRE(rig.other.create("/lock", ""));
    coord::Lock lock(rig.zk.session(), "/lock");
    Errcs told;
    lock.acquire([](const coord::Result<coord::Grant>&) {});
    lock.release([&](const coord::Result<void>& result) { told.push_back(result.error()); });
    rig.cut_off_when_numbered();
    rig.sim.storage(rig.at).fail();
    rig.sim.heal();
    rig.sim.run_for(seconds(5));
    CHECK(rig.sim.replica(rig.at).status().role == coord::Role::failed);
    CHECK(rig.other.children("/lock")->names.size() == 1);
    CHECK(told == Errcs{Errc::replica_failed});
}

TEST_CASE("wchs, wchc and wchp of a replica: who watches what there") {
    Alone alone;
    const Sync first = alone.open(), second = alone.open();
    const coord::Watcher watcher = [](const coord::WatchEvent&) {};
    CHECK(first.exists("/b", watcher).error() == Errc::no_node);
    REQUIRE(second.get("/", watcher));
    REQUIRE(second.children("/", {}, watcher));
    REQUIRE(first.add_watch("/", coord::AddWatchMode::persistent_recursive, watcher));
    const coord::WatchCounts counts = alone.replica.count_watches();
    CHECK(counts.sessions == 2);
    CHECK(counts.paths == 2);
    CHECK(counts.watchers == alone.replica.status().watches);
    const auto by_session = alone.replica.list_watches(coord::WatchOrder::by_session);
    REQUIRE(by_session.size() == 4);
    CHECK(by_session[0].path == "/");
    CHECK(by_session[0].session == first.session().id());
    CHECK(by_session[1].path == "/b");
    CHECK(by_session[3].session == second.session().id());
    const auto by_path = alone.replica.list_watches(coord::WatchOrder::by_path, {}, 3);
    REQUIRE(by_path.size() == 3);
    CHECK(by_path[2].kind == coord::WatchKind::children);
    const auto rest = alone.replica.list_watches(coord::WatchOrder::by_path, by_path[2]);
    REQUIRE(rest.size() == 1);
    CHECK(rest[0].path == "/b");
    CHECK(alone.replica.list_watches(coord::WatchOrder::by_path, rest[0]).empty());
}

TEST_CASE("a page of watches is no longer than list_max, whatever is asked for") {
    coord::ReplicaOptions options;
    options.limits.list_max = 2;
    Alone alone(options);
    const Sync zk = alone.open();
    for (const char* const path : {"/a", "/b", "/c"}) {
        (void)zk.exists(path, [](const coord::WatchEvent&) {});
    }
    const auto page = alone.replica.list_watches(coord::WatchOrder::by_path);
    REQUIRE(page.size() == 2);
    CHECK(alone.replica.list_watches(coord::WatchOrder::by_path, page[1]).size() == 1);
}

TEST_CASE("dump: the sessions, in order, each with its ephemeral nodes") {
    Alone alone;
    const Sync first = alone.open(), second = alone.open();
    REQUIRE(second.create("/b", "", CreateMode::ephemeral));
    REQUIRE(second.create("/a", "", CreateMode::ephemeral));
    Lines dumped;
    for (const auto& session : alone.replica.machine().sessions()) {
        dumped.push_back(session.first == first.session().id() ? "first" : "second");
        alone.replica.tree().list_owned(session.first, "", "", [&](const coord::NodeView& node) {
            dumped.emplace_back(node.path);
            return true;
        });
    }
    CHECK(dumped == Lines{"first", "second", "/a", "/b"});
}

TEST_CASE("M16 a watcher of the config, and the same text at each voter") {
    session_rig::Ensemble all;
    Bytes text;
    for (std::uint32_t id = 1; id <= 3; id++) {
        const auto read = all.open(id).get("/zookeeper/config");
        REQUIRE(read);
        CHECK(read->stat.version == 1);
        if (id > 1) CHECK(read->bytes == text);
        text = read->bytes;
    }
    CHECK(text.find("server.1=participant\nserver.2=participant\nserver.3=participant\nversion=") ==
          0);
}

}  // TEST_SUITE
