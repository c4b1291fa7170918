// Chapters 4, 12 and 13: a session goes on elsewhere. Machines by hand first, then whole ensembles
// in a simulation.

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "machine_rig.hpp"
#include "session_rig.hpp"
#include "support.hpp"

namespace {

using coord::Bytes;
using coord::CreateMode;
using coord::Errc;
using coord::milliseconds;
using coord::OpCode;
using coord::Outcome;
using coord::seconds;
using coord::Session;
using coord::SessionId;
using coord::SessionPassword;
using coord::SessionState;
using coord::Sync;
using machine::Rig;

constexpr std::uint64_t first_holding = std::uint64_t{1} << coord::cxid_bits;

Bytes holder(std::uint64_t nonce) {
    Bytes body;
    coord::Writer(body).u64(nonce);
    return body;
}

// Three voters. A session is written down as a program would do it that wants it back.
struct Ensemble : session_rig::Ensemble {
    struct Ticket {
        SessionId id;
        SessionPassword password;
    };
    std::vector<std::string> states;

    explicit Ensemble(std::uint64_t seed = 1, std::uint32_t snapshot_every = 100000)
        : session_rig::Ensemble(options(seed, snapshot_every)) {}
    static coord::SimulationOptions options(std::uint64_t seed, std::uint32_t snapshot_every) {
        coord::SimulationOptions result = session_rig::Ensemble::options(seed);
        result.replica.snapshot_every_entries = snapshot_every;
        if (snapshot_every < 100) result.replica.log_entries_kept = 2;
        return result;
    }
    Sync open(std::uint32_t at, coord::Duration timeout = seconds(4)) {
        const Sync zk = session_rig::Ensemble::open(at, timeout);
        zk.session().on_state(
            [this](SessionState state) { states.push_back(coord::name(state)); });
        return zk;
    }
    static Ticket ticket(const Sync& zk) {
        return {zk.session().id(), zk.session().password()};
    }
    coord::Result<Session> attach(std::uint32_t at, const Ticket& ticket) {
        return Sync::attach(sim.replica(at), ticket.id, ticket.password, sim.pump());
    }
};

}  // namespace

TEST_SUITE("13 attach") {

TEST_CASE("M8 who attaches begins a new count, and what came before it is void") {
    Rig rig;
    const SessionId id = rig.open(7);
    rig.create(id, "/e", "", CreateMode::ephemeral);
    const auto set = [&](std::uint64_t cxid, const char* data) {
        return rig.apply(id, cxid, OpCode::set, machine::set_body("/e", data, -1));
    };
    CHECK(set(first_holding + 1, "early") == nullptr);
    const Outcome* outcome = rig.apply(id, first_holding, OpCode::attach_session, holder(9));
    REQUIRE(outcome != nullptr);
    CHECK(outcome->error == Errc::ok);
    CHECK(outcome->session == id);
    rig.machine.audit();
    const coord::SessionRecord* const record = rig.machine.find_session(id);
    CHECK(record->cxid == first_holding);
    CHECK(record->confirmed == first_holding);
    CHECK(record->outcomes.empty());
    CHECK(record->holder == 9);
    CHECK(rig.machine.tree().contains("/e"));
    CHECK(set(2, "late") == nullptr);
    CHECK(rig.apply(id, first_holding, OpCode::attach_session, holder(9)) == nullptr);
    CHECK(rig.apply(id, first_holding, OpCode::attach_session, holder(10)) == nullptr);
    CHECK(rig.apply(id, 3 * first_holding, OpCode::attach_session, holder(10)) == nullptr);
    outcome = set(first_holding + 1, "now");
    REQUIRE(outcome != nullptr);
    CHECK(outcome->error == Errc::ok);
    outcome = rig.apply(id, 2 * first_holding, OpCode::attach_session, holder(10));
    REQUIRE(outcome != nullptr);
    CHECK(record->holder == 10);
    CHECK(set(first_holding + 2, "late") == nullptr);
    CHECK(rig.machine.tree().find("/e")->data == "now");
    rig.machine.audit();
}

TEST_CASE("M8 an attach of nobody, and with a body that is none") {
    Rig rig;
    const Outcome* outcome =
        rig.apply(SessionId{99}, first_holding, OpCode::attach_session, holder(1));
    REQUIRE(outcome != nullptr);
    CHECK(outcome->error == Errc::session_expired);
    const SessionId id = rig.open(7);
    CHECK(rig.apply(id, first_holding, OpCode::attach_session, "short") == nullptr);
    CHECK(rig.machine.find_session(id)->cxid == 0);
    CHECK(rig.apply(id, 1, OpCode::close_session, Bytes(1, '\0')) != nullptr);
}

TEST_CASE("M8 the count of holders has an end, and does not begin again") {
    CHECK(coord::next_holding(0) == first_holding);
    CHECK(coord::next_holding(5) == first_holding);
    CHECK(coord::next_holding(first_holding - 1) == first_holding);
    CHECK(coord::next_holding(first_holding) == 2 * first_holding);
    CHECK(coord::next_holding(UINT64_MAX) == 0);
    Rig rig;
    const SessionId id = rig.open(7);
    for (std::uint64_t i = 1; i < 65536; i++) {
        REQUIRE(rig.apply(id, i * first_holding, OpCode::attach_session, holder(i)) != nullptr);
    }
    CHECK(rig.apply(id, 0, OpCode::attach_session, holder(1)) == nullptr);
    CHECK(rig.machine.find_session(id)->holder == 65535);
}

TEST_CASE("a state has the password and the holder") {
    Rig rig;
    const SessionId id = rig.open(7);
    REQUIRE(rig.apply(id, first_holding, OpCode::attach_session, holder(9)) != nullptr);
    Rig copy;
    REQUIRE(copy.machine.load(rig.saved()) == Errc::ok);
    const coord::SessionRecord* const record = copy.machine.find_session(id);
    REQUIRE(record != nullptr);
    CHECK(is_same(record->password, {21, 35}));  // of nonce 7
    CHECK(record->holder == 9);
    CHECK(copy.machine.digest() == rig.machine.digest());
    Rig other;
    REQUIRE(other.open(7) == id);
    REQUIRE(other.apply(id, first_holding, OpCode::attach_session, holder(8)) != nullptr);
    CHECK(other.machine.digest() != rig.machine.digest());
}

TEST_CASE("a password is the same in both halves or another") {
    CHECK(coord::is_same({}, {}));
    CHECK(coord::is_same({1, 2}, {1, 2}));
    CHECK_FALSE(coord::is_same({1, 2}, {2, 2}));
    CHECK_FALSE(coord::is_same({1, 2}, {1, 1}));
    CHECK_FALSE(coord::is_same({std::uint64_t{1} << 63, 0}, {0, 0}));
}

TEST_CASE("a session outlives its replica: attached at another one, it keeps what is its") {
    Ensemble all;
    const std::uint32_t first = all.follower(0), second = all.follower(1);
    const Sync zk = all.open(first);
    REQUIRE(zk.create("/mine", "x", CreateMode::ephemeral));
    const Ensemble::Ticket ticket = Ensemble::ticket(zk);
    CHECK_FALSE(is_same(ticket.password, {}));
    all.sim.crash(first);
    const coord::Result<Session> attached = all.attach(second, ticket);
    REQUIRE(attached);
    CHECK(attached->id() == ticket.id);
    CHECK(attached->timeout() == seconds(4));
    CHECK(is_same(attached->password(), ticket.password));
    all.sim.run_for(seconds(20));  // it is kept alive from here
    CHECK(attached->state() == SessionState::connected);
    CHECK(all.sees(second, "/mine"));
    const Sync again(*attached, all.sim.pump());
    CHECK(again.set("/mine", "y"));
    CHECK(again.create("/more", "", CreateMode::ephemeral)->stat.ephemeral_owner == ticket.id);
    CHECK(again.close());
    CHECK_FALSE(all.sees(second, "/mine"));
    CHECK_FALSE(all.sees(second, "/more"));
}

TEST_CASE("a program that starts again finds its session at its own replica") {
    Ensemble all;
    const std::uint32_t home = all.leader();
    const Sync zk = all.open(home, seconds(20));
    REQUIRE(zk.create("/mine", "", CreateMode::ephemeral));
    const Ensemble::Ticket ticket = Ensemble::ticket(zk);
    all.sim.crash(home);
    all.sim.run_for(seconds(2));
    all.sim.restart(home);
    const coord::Result<Session> attached = all.attach(home, ticket);
    REQUIRE(attached);
    CHECK(Sync(*attached, all.sim.pump()).remove("/mine"));
}

TEST_CASE("R10 where it was, it is over: told once, and nothing of it is answered as done") {
    Ensemble all;
    const std::uint32_t first = all.follower(0), second = all.follower(1);
    const Sync zk = all.open(first);
    REQUIRE(zk.create("/n", "0"));
    std::size_t events = 0;
    REQUIRE(zk.get("/n", [&](const coord::WatchEvent&) { events += 1; }));
    const coord::Result<Session> attached = all.attach(second, Ensemble::ticket(zk));
    REQUIRE(attached);
    all.sim.run_for(seconds(1));
    CHECK(zk.session().state() == SessionState::moved);
    CHECK(all.states == std::vector<std::string>{"MOVED"});
    CHECK(zk.session().certain_until() == coord::Time{});
    CHECK(is_same(zk.session().password(), {}));
    CHECK(zk.set("/n", "1").error() == Errc::session_moved);
    CHECK(zk.get("/n").error() == Errc::session_moved);
    CHECK(Sync(*attached, all.sim.pump()).set("/n", "2"));
    all.sim.run_for(seconds(1));
    CHECK(events == 0);
    CHECK(Sync(*attached, all.sim.pump()).close());
    all.sim.run_for(seconds(1));
    CHECK(zk.session().state() == SessionState::expired);
    CHECK(zk.set("/n", "1").error() == Errc::session_expired);
}

TEST_CASE("M8 what the former holder has under way is never executed") {
    Ensemble all;
    const std::uint32_t first = all.follower(0), second = all.follower(1);
    const Sync zk = all.open(first);
    REQUIRE(zk.create("/n", "0"));
    all.sim.isolate(first);  // it asks, and nobody hears it
    std::vector<Errc> ends;
    for (const char* const data : {"1", "2", "3"}) {
        zk.session().set("/n", data, [&](const coord::Result<coord::Stat>& result) {
            ends.push_back(result.error());
        });
    }
    const coord::Result<Session> attached = all.attach(second, Ensemble::ticket(zk));
    REQUIRE(attached);
    CHECK(ends.empty());
    all.sim.heal();
    CHECK(all.sim.run_until([&] { return ends.size() == 3; }, seconds(20)));
    CHECK(ends == std::vector<Errc>(3, Errc::session_moved));
    all.sim.run_for(seconds(2));
    CHECK(all.sim.replica(second).tree().find("/n")->data == "0");
    CHECK(attached->state() == SessionState::connected);
}

TEST_CASE("who cannot have it is told why") {
    Ensemble all;
    const Sync zk = all.open(all.follower(0));
    Ensemble::Ticket ticket = Ensemble::ticket(zk);
    ticket.password.low += 1;
    CHECK(all.attach(all.leader(), ticket).error() == Errc::auth_failed);
    CHECK(all.attach(all.follower(1), {ticket.id, {}}).error() == Errc::auth_failed);
    CHECK(zk.session().state() == SessionState::connected);
    CHECK(all.attach(all.leader(), {SessionId{12345}, {}}).error() == Errc::session_expired);
    CHECK(zk.close());
    ticket.password.low -= 1;
    CHECK(all.attach(all.follower(1), ticket).error() == Errc::session_expired);
}

TEST_CASE("M8 of two who attach at once one has it, and the other is told") {
    for (std::uint64_t seed = 1; seed <= 20; seed++) {
        Ensemble all(seed);
        const Sync zk = all.open(all.follower(0));
        const Ensemble::Ticket ticket = Ensemble::ticket(zk);
        std::vector<Errc> ends;
        const auto note = [&](const coord::Result<Session>& r) { ends.push_back(r.error()); };
        Session::attach(all.sim.replica(all.leader()), ticket.id, ticket.password, note);
        Session::attach(all.sim.replica(all.follower(1)), ticket.id, ticket.password, note);
        Session::attach(all.sim.replica(all.follower(1)), ticket.id, ticket.password, note);
        REQUIRE(all.sim.run_until([&] { return ends.size() == 3; }, seconds(10)));
        std::size_t won = 0;
        for (const Errc end : ends) {
            won += end == Errc::ok ? 1u : 0u;
            CHECK((end == Errc::ok || end == Errc::session_moved));
        }
        CHECK(won >= 1);  // a second one, where the first was done before it was asked
        all.sim.run_for(seconds(1));
        CHECK(all.states == std::vector<std::string>{"MOVED"});
    }
}

TEST_CASE("watchers are set as of what was seen where the session was, and nothing is missed") {
    Ensemble all(7);
    const std::uint32_t first = all.follower(0), second = all.follower(1);
    const Sync zk = all.open(first, seconds(30));
    const Sync other = all.open(all.leader(), seconds(30));
    REQUIRE(other.create("/n", "0"));
    REQUIRE(zk.sync());
    int before = 0;
    const auto seen = zk.get("/n", [&](const coord::WatchEvent&) { before += 1; });
    REQUIRE(seen);
    const auto ticket = Ensemble::ticket(zk);
    all.sim.isolate(first);  // what happens now it is never told there
    REQUIRE(other.set("/n", "1"));
    const coord::Result<Session> attached = all.attach(second, ticket);
    REQUIRE(attached);
    const Sync moved(*attached, all.sim.pump());
    std::vector<coord::WatchEvent> heard;
    const auto hear = [&](const coord::WatchEvent& event) { heard.push_back(event); };
    REQUIRE(moved.watch_since(seen->zxid, coord::Watched::data, "/n", hear));
    REQUIRE(heard.size() == 1);
    CHECK(before == 0);
    CHECK(heard[0].type == coord::EventType::data_changed);
    CHECK(heard[0].zxid == moved.exists("/n")->mzxid);
    // A replica that is behind what was seen elsewhere does not tell of it once more.
    all.sim.isolate(second);
    const auto ahead = other.set("/n", "2");
    CHECK_FALSE(ahead);  // no majority is left
    all.sim.heal();
    all.sim.run_for(seconds(2));
    const auto last = other.set("/n", "3");
    REQUIRE(last);
    REQUIRE(moved.watch_since(last->mzxid, coord::Watched::data, "/n", hear));
    all.sim.run_for(seconds(1));
    CHECK(heard.size() == 1);
    REQUIRE(other.set("/n", "4"));
    all.sim.run_for(seconds(1));
    CHECK(heard.size() == 2);
}

TEST_CASE("R10 a replica that jumps over it by a snapshot hears of it too") {
    Ensemble all(3, 50);
    const std::uint32_t first = all.follower(0), second = all.follower(1);
    const Sync zk = all.open(first, seconds(30));
    const Sync other = all.open(second, seconds(30));
    REQUIRE(other.create("/n", ""));
    all.sim.isolate(first);
    const coord::Result<Session> attached = all.attach(second, Ensemble::ticket(zk));
    REQUIRE(attached);
    all.sim.run_for(seconds(5));  // now nothing is kept for it
    for (int i = 0; i < 500; i++) REQUIRE(other.set("/n", std::to_string(i)));
    all.sim.heal();
    all.sim.run_for(seconds(5));
    CHECK(all.sim.replica(first).counters().snapshots_installed == 1);
    CHECK(zk.session().state() == SessionState::moved);
    CHECK(all.states.back() == "MOVED");
    // And one that asks for it, and gets the answer in a snapshot.
    all.sim.isolate(first);
    std::vector<Errc> ends;
    const Ensemble::Ticket ticket{attached->id(), attached->password()};
    Session::attach(all.sim.replica(first), ticket.id, ticket.password,
                    [&](const coord::Result<Session>& r) { ends.push_back(r.error()); });
    REQUIRE(Sync(*attached, all.sim.pump()).close());
    all.sim.run_for(seconds(5));
    for (int i = 0; i < 500; i++) REQUIRE(other.set("/n", std::to_string(i)));
    all.sim.heal();
    CHECK(all.sim.run_until([&] { return !ends.empty(); }, seconds(10)));
    CHECK(ends == std::vector<Errc>{Errc::session_expired});
}

TEST_CASE("a lock is lost to a holder whose session has moved; nobody else gets it meanwhile") {
    Ensemble all;
    const std::uint32_t first = all.follower(0), second = all.follower(1);
    const Sync zk = all.open(first);
    coord::Lock lock(zk.session(), "/lock");
    std::vector<Errc> lost;
    lock.on_lost([&](Errc error) { lost.push_back(error); });
    REQUIRE(zk.wait<coord::Grant>([&](auto done) { lock.acquire(done); }));
    const coord::Result<Session> attached = all.attach(second, Ensemble::ticket(zk));
    REQUIRE(attached);
    all.sim.run_for(seconds(1));
    CHECK(lost == std::vector<Errc>{Errc::session_moved});
    const Sync other = all.open(all.leader());
    coord::Lock contender(other.session(), "/lock");
    bool granted = false;
    contender.acquire([&](const coord::Result<coord::Grant>& r) { granted = bool(r); });
    all.sim.run_for(seconds(10));
    CHECK_FALSE(granted);  // its node is the session's, which lives
    REQUIRE(Sync(*attached, all.sim.pump()).close());
    CHECK(all.sim.run_until([&] { return granted; }, seconds(5)));
}

TEST_CASE("numbers that recipes are made of are not given twice to one session") {
    Ensemble all;
    const Sync zk = all.open(all.follower(0));
    const std::uint64_t before = zk.session().next_number();
    const coord::Result<Session> attached =
        all.attach(all.follower(1), Ensemble::ticket(zk));
    REQUIRE(attached);
    CHECK(attached->next_number() > before + 1000000);
}

TEST_CASE("C7 an attach is a sign of life: the timeout begins anew") {
    Ensemble all;
    const Sync zk = all.open(all.follower(0), seconds(4));
    const Ensemble::Ticket ticket = Ensemble::ticket(zk);
    all.sim.crash(all.follower(0));
    all.sim.run_for(seconds(3));
    const coord::Result<Session> attached = all.attach(all.leader(), ticket);
    REQUIRE(attached);
    const coord::PeerId at = all.sim.leader();
    const coord::Time certain = attached->certain_until();
    CHECK(certain > all.sim.clock(at) + seconds(3));
    all.sim.run_for(seconds(3));
    CHECK(attached->state() == SessionState::connected);
}

TEST_CASE("an attach of no session opens none") {
    Ensemble all;
    CHECK(all.attach(all.leader(), {SessionId{}, {}}).error() == Errc::session_expired);
    all.sim.run_for(seconds(1));
    CHECK(all.sim.replica(all.leader()).machine().sessions().size() == 0);
}

TEST_CASE("R10 who has opened it, and hears of that after it was attached, has it no more") {
    Ensemble all(3, 50);
    const std::uint32_t first = all.follower(0), second = all.follower(1);
    const Sync other = all.open(second, seconds(30));
    REQUIRE(other.create("/n", ""));
    std::vector<Errc> ends;
    Session::open(all.sim.replica(first), {seconds(30), {5, 6}},
                  [&](const coord::Result<Session>& r) { ends.push_back(r.error()); });
    coord::Replica& leader = all.sim.replica(all.leader());
    const coord::Zxid before = leader.log().last().zxid;
    REQUIRE(all.sim.run_until([&] { return leader.log().last().zxid > before; }, seconds(5)));
    all.sim.isolate(first);  // it is numbered, and its replica does not hear that it is committed
    const coord::Machine::Sessions& sessions = leader.machine().sessions();
    REQUIRE(all.sim.run_until([&] { return sessions.size() == 2; }, seconds(5)));
    SessionId id;
    for (const auto& each : sessions) id = each.first;
    REQUIRE(id != other.session().id());
    const coord::Result<Session> attached = all.attach(second, {id, {5, 6}});
    REQUIRE(attached);
    all.sim.run_for(seconds(5));  // now nothing is kept for it
    for (int i = 0; i < 500; i++) REQUIRE(other.set("/n", std::to_string(i)));
    REQUIRE(ends.empty());
    all.sim.heal();
    CHECK(all.sim.run_until([&] { return !ends.empty(); }, seconds(10)));
    CHECK(all.sim.replica(first).counters().snapshots_installed == 1);
    CHECK(ends == std::vector<Errc>{Errc::session_moved});
    CHECK(all.sim.replica(first).session_state(id) == SessionState::moved);
    CHECK(attached->state() == SessionState::connected);
}

TEST_CASE("R10 attached where it is already, a handle of before is over all the same") {
    Ensemble all;
    const std::uint32_t home = all.follower();
    const Sync zk = all.open(home);
    REQUIRE(zk.create("/n", "0"));
    coord::Lock lock(zk.session(), "/lock");
    std::vector<Errc> lost;
    lock.on_lost([&](Errc error) { lost.push_back(error); });
    const auto grant = zk.wait<coord::Grant>([&](auto done) { lock.acquire(done); });
    REQUIRE(grant);
    const coord::Result<Session> attached = all.attach(home, Ensemble::ticket(zk));
    REQUIRE(attached);
    all.sim.run_for(seconds(1));
    CHECK(all.states == std::vector<std::string>{"MOVED"});
    CHECK(zk.session().state() == SessionState::moved);
    CHECK(zk.session().certain_until() == coord::Time{});
    CHECK(is_same(zk.session().password(), {}));
    CHECK(zk.set("/n", "1").error() == Errc::session_moved);
    CHECK(zk.linearizable().get("/n").error() == Errc::session_moved);
    CHECK(zk.below("/n").get("/").error() == Errc::session_moved);
    CHECK(zk.close().error() == Errc::session_moved);
    CHECK(lost == std::vector<Errc>{Errc::session_moved});
    CHECK(all.sees(home, grant->node.c_str()));  // who was told so removes nothing
    std::size_t told = 0;
    zk.session().below("/x").on_state([&](SessionState) { told += 1; });
    Session(zk.session()).on_state([&](SessionState) { told += 1; });
    CHECK(attached->state() == SessionState::connected);
    CHECK(attached->certain_until() != coord::Time{});
    const Sync again(*attached, all.sim.pump());
    CHECK(again.get("/n")->bytes == "0");
    CHECK(again.close());
    all.sim.run_for(seconds(1));
    CHECK(told == 0);
    CHECK(zk.session().state() == SessionState::expired);
    CHECK(zk.get("/n").error() == Errc::session_expired);
}

// Its disk stands still while it is told to.
class Stalling final : public support::Forwarding {
public:
    using Forwarding::Forwarding;
    coord::Sequence durable() const override {
        if (!stands) durable_ = inner_.durable();
        return durable_;
    }
    bool stands = false;

private:
    mutable coord::Sequence durable_ = 0;
};

TEST_CASE("R10 of two that attach it, and are both told in one poll, the second has it") {
    coord::MemoryStorage memory;
    Stalling disk(memory);
    coord::Replica replica({}, disk);
    coord::Time now;
    const auto pump = [&] {
        now = now + coord::milliseconds(1);
        replica.poll(now);
        return true;
    };
    const coord::Result<Session> opened = Sync::open(replica, {}, pump);
    REQUIRE(opened);
    std::vector<Errc> told;
    std::vector<Session> handles;
    const SessionPassword password = opened->password();
    const auto attach = [&] {
        Session::attach(replica, opened->id(), password, [&](coord::Result<Session> made) {
            told.push_back(made.error());
            if (made) handles.push_back(*made);
        });
    };
    disk.stands = true;
    attach();
    for (int i = 0; i < 5; i++) pump();
    CHECK(told.empty());
    disk.stands = false;
    attach();  // it is judged by what that poll applies first
    pump();
    CHECK(told == std::vector<Errc>{Errc::session_moved, Errc::ok});
    REQUIRE(handles.size() == 1);
    CHECK(handles[0].state() == SessionState::connected);
    CHECK(opened->state() == SessionState::moved);
}

TEST_CASE("a lock that is given back before it has a node, and whose session moves, says so") {
    Ensemble all;
    const std::uint32_t first = all.follower(0), second = all.follower(1);
    const Sync zk = all.open(first);
    all.sim.isolate(first);
    coord::Lock lock(zk.session(), "/lock");
    std::vector<Errc> ends;
    lock.acquire([&](const coord::Result<coord::Grant>& r) { ends.push_back(r.error()); });
    lock.release([&](coord::Result<void> r) { ends.push_back(r.error()); });
    REQUIRE(all.attach(second, Ensemble::ticket(zk)));
    all.sim.heal();
    CHECK(all.sim.run_until([&] { return ends.size() == 2; }, seconds(20)));
    CHECK(ends == std::vector<Errc>{Errc::cancelled, Errc::session_moved});
}

TEST_CASE("a password of one's own, and the bound of sessions at a replica") {
    coord::MemoryStorage disk;
    coord::ReplicaOptions options;
    options.limits.sessions_max = 2;
    coord::Replica replica(options, disk);
    coord::Time now;
    const coord::Pump pump = [&] {
        now = now + milliseconds(1);
        replica.poll(now);
        return true;
    };
    const auto opened = Sync::open(replica, {seconds(10), {5, 6}}, pump);
    REQUIRE(opened);
    CHECK(is_same(opened->password(), {5, 6}));
    REQUIRE(Sync::open(replica, {}, pump));
    CHECK(Sync::open(replica, {}, pump).error() == Errc::too_many);
    const auto attached = Sync::attach(replica, opened->id(), {5, 6}, pump);
    REQUIRE(attached);  // which makes them no more
    std::vector<Errc> ends;
    for (int i = 0; i < 3; i++) {
        Session::attach(replica, opened->id(), {5, 6},
                        [&](const coord::Result<Session>& r) { ends.push_back(r.error()); });
    }
    for (int i = 0; i < 10; i++) pump();
    CHECK(ends == std::vector<Errc>{Errc::too_many, Errc::session_moved, Errc::ok});
}

}
