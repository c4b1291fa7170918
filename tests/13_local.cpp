// Chapters 4, 10, 12 and 13: local sessions, and what becomes of them with their first write.
// Machines by hand first, then a replica alone, then whole ensembles in a simulation.

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
using coord::Zxid;
using machine::Rig;
using Lines = std::vector<std::string>;

constexpr SessionId local_id{0x8000000000000007};

Bytes body_of(SessionId id, std::uint8_t mark = 1) {
    Bytes body;
    coord::Writer writer(body);
    writer.u64(id.value), writer.u32(5000), writer.u64(21), writer.u64(35), writer.u8(mark);
    return body;
}

coord::SessionOptions local_options(coord::Duration timeout = seconds(4)) {
    coord::SessionOptions options;
    options.timeout = timeout;
    options.is_local = true;
    return options;
}

struct Alone : session_rig::Alone {
    using session_rig::Alone::Alone;
    Sync open_local() {
        auto opened = Sync::open(replica, local_options(), pump());
        REQUIRE(opened);
        return Sync{*opened, pump(patience)};
    }
    Zxid last() const { return replica.log().last().zxid; }
};

struct Ensemble : session_rig::Ensemble {
    explicit Ensemble(std::uint64_t seed = 1, std::uint32_t snapshot_every = 100000)
        : session_rig::Ensemble(options(seed, snapshot_every)) {}
    explicit Ensemble(const coord::SimulationOptions& options) : session_rig::Ensemble(options) {}
    static coord::SimulationOptions options(std::uint64_t seed,
                                            std::uint32_t snapshot_every = 100000) {
        coord::SimulationOptions result = session_rig::Ensemble::options(seed);
        result.replica.snapshot_every_entries = snapshot_every;
        if (snapshot_every < 100) result.replica.log_entries_kept = 2;
        return result;
    }
    Sync open_local(std::uint32_t at, coord::Duration timeout = seconds(4)) {
        auto opened = Sync::open(sim.replica(at), local_options(timeout), sim.pump());
        REQUIRE(opened);
        CHECK(opened->is_local());
        return Sync{*opened, sim.pump()};
    }
    coord::Result<Session> attach(std::uint32_t at, SessionId id, SessionPassword password) {
        return Sync::attach(sim.replica(at), id, password, sim.pump());
    }
    bool has_record(std::uint32_t at, SessionId id) {
        return sim.replica(at).machine().find_session(id) != nullptr;
    }
};

}  // namespace

TEST_SUITE("13 local") {

// -- Machines --------------------------------------------------------------------------------

TEST_CASE("M17 one that was local is opened under its own id, once") {
    Rig rig;
    const Outcome* outcome = rig.apply({}, 0, OpCode::open_session, body_of(local_id));
    REQUIRE(outcome != nullptr);
    CHECK(outcome->error == Errc::ok);
    CHECK(outcome->session == local_id);
    const coord::SessionRecord* const record = rig.machine.find_session(local_id);
    REQUIRE(record != nullptr);
    CHECK(record == rig.machine.find_nonce(local_id.value));
    CHECK(record->timeout_ms == 5000);
    CHECK(is_same(record->password, {21, 35}));
    CHECK(record->cxid == 0);
    CHECK(record->confirmed == 0);
    outcome = rig.apply({}, 0, OpCode::open_session, body_of(local_id));
    CHECK(outcome->error == Errc::ok);
    CHECK(outcome->session == local_id);
    CHECK(rig.machine.sessions().size() == 1);
    const Bytes create = machine::create_body("/e", "", CreateMode::ephemeral, 0);
    outcome = rig.apply(local_id, 1, OpCode::create, create);
    REQUIRE(outcome != nullptr);
    CHECK(outcome->error == Errc::ok);
    CHECK(outcome->stat.ephemeral_owner == local_id);
}

TEST_CASE("M17 an id that somebody has is refused, whoever comes second") {
    SUBCASE("a local one, where that is a session's of a late epoch") {
        Rig rig;
        const Zxid late{std::uint32_t{1} << 23, 5};
        coord::Txn txn;
        txn.zxid = late;
        const Bytes plain = machine::open_body(7, 5000);
        txn.body = plain;
        CHECK(rig.machine.apply(txn, rig.heard)->session == SessionId{late.value});
        txn.zxid = Zxid{late.epoch(), 6};
        const Bytes body = body_of(SessionId{late.value});
        txn.body = body;
        CHECK(rig.machine.apply(txn, rig.heard)->error == Errc::session_expired);
        CHECK(rig.machine.sessions().size() == 1);
        rig.machine.audit();
    }
    SUBCASE("a session of a late epoch, where that is a local one's") {
        Rig rig;
        const Zxid late{std::uint32_t{1} << 23, 5};
        rig.apply({}, 0, OpCode::open_session, body_of(SessionId{late.value}));
        coord::Txn txn;
        txn.zxid = late;
        const Bytes plain = machine::open_body(7, 5000);
        txn.body = plain;
        CHECK(rig.machine.apply(txn, rig.heard)->error == Errc::too_many);
        CHECK(rig.machine.sessions().size() == 1);
        rig.machine.audit();
    }
    SUBCASE("a nonce that is such an id, and another's") {
        Rig rig;
        const SessionId other = rig.open(local_id.value);
        CHECK(rig.apply({}, 0, OpCode::open_session, body_of(local_id))->error ==
              Errc::session_expired);
        CHECK(rig.machine.find_session(other) != nullptr);
        CHECK(rig.machine.find_session(local_id) == nullptr);
    }
}

TEST_CASE("the bytes of an opening: those of before, and with a mark those of a local one") {
    const auto judge = [](const Bytes& body) {
        return coord::judge_request(OpCode::open_session, body, {});
    };
    CHECK(support::hex(body_of(local_id)) ==
          "8000000000000007"
          "00001388"
          "0000000000000015"
          "0000000000000023"
          "01");
    CHECK(judge(body_of(local_id)) == Errc::ok);
    CHECK(judge(machine::open_body(7, 5000)) == Errc::ok);
    CHECK(judge(body_of(local_id, 0)) == Errc::marshalling_error);
    CHECK(judge(body_of(local_id, 2)) == Errc::marshalling_error);
    CHECK(judge(body_of(SessionId{7})) == Errc::marshalling_error);
    CHECK(judge(body_of(local_id) + '\1') == Errc::marshalling_error);
    Rig rig;
    for (const Bytes& body : {body_of(local_id, 2), body_of(SessionId{7}), Bytes(29, '\1')}) {
        CHECK(rig.apply({}, 0, OpCode::open_session, body)->error == Errc::marshalling_error);
    }
    CHECK(rig.machine.sessions().size() == 0);
}

TEST_CASE("too_many: the ensemble's sessions are bounded, whatever they were before") {
    coord::Limits limits;
    limits.sessions_max = 1;
    Rig rig(limits);
    const SessionId first = rig.open(7);
    CHECK(rig.apply({}, 0, OpCode::open_session, body_of(local_id))->error == Errc::too_many);
    CHECK(rig.machine.find_session(local_id) == nullptr);
    CHECK(rig.apply(first, 0, OpCode::close_session, "\1")->error == Errc::ok);
    CHECK(rig.apply({}, 0, OpCode::open_session, body_of(local_id))->error == Errc::ok);
}

TEST_CASE("saves: those that were local are in them, and those opened meanwhile are not") {
    Rig rig;
    std::vector<SessionId> locals;
    for (std::uint64_t i = 0; i < 20; i++) {
        locals.push_back(SessionId{local_id.value + i * 1000});
        rig.apply({}, 0, OpCode::open_session, body_of(locals.back()));
        rig.open(100 + i);
    }
    const std::vector<Bytes> before = rig.records();
    const std::uint64_t digest = rig.machine.digest();
    Bytes out;
    rig.machine.begin_save();
    std::uint64_t step = 0;
    for (bool done = false; !done; step++) {
        REQUIRE(step < 1000);
        // One between those that are there, one after them all; and one of those ends.
        rig.apply({}, 0, OpCode::open_session, body_of(SessionId{local_id.value + step * 17 + 1}));
        rig.apply({}, 0, OpCode::open_session, body_of(SessionId{~std::uint64_t{0} - step}));
        rig.open(1000 + step);
        if (step < locals.size() / 2) {
            const SessionId ends = locals[locals.size() - 1 - step];
            CHECK(rig.apply(ends, 0, OpCode::close_session, "\1")->error == Errc::ok);
        }
        done = rig.machine.save_slice(40, out);
    }
    CHECK(support::sorted_records(out) == before);
    Rig copy;
    REQUIRE(copy.machine.load(out) == Errc::ok);
    CHECK(copy.machine.digest() == digest);
    copy.machine.audit();
    const coord::SessionRecord* const record = copy.machine.find_session(locals[3]);
    REQUIRE(record != nullptr);
    CHECK(record->cxid == record->confirmed);
    CHECK(copy.machine.find_nonce(locals[3].value) == record);
}

// -- A replica alone -------------------------------------------------------------------------

TEST_CASE("a local session is there at once, without a byte in the log, and reads and watches") {
    Alone a;
    const Sync writer = a.open();
    REQUIRE(writer.create("/n", "0"));
    const Zxid before = a.last();
    bool is_told = false;
    Session::open(a.replica, local_options(), [&](const coord::Result<Session>& opened) {
        REQUIRE(opened);
        is_told = true;
    });
    CHECK_FALSE(is_told);  // C1
    a.poll();
    CHECK(is_told);
    const Sync zk = a.open_local();
    const SessionId id = zk.session().id();
    CHECK((id.value >> 63) == 1);
    CHECK(zk.session().is_local());
    CHECK_FALSE(writer.session().is_local());
    CHECK(zk.session().state() == SessionState::connected);
    CHECK(zk.session().timeout() == seconds(4));
    CHECK(zk.session().certain_until() == coord::Time{});
    CHECK_FALSE(is_same(zk.session().password(), {}));
    CHECK(a.replica.status().local_sessions == 2);
    CHECK(a.replica.status().sessions == 1);

    Lines heard;
    const auto watcher = [&](const coord::WatchEvent& event) { heard.push_back(event.path); };
    CHECK(zk.get("/n", watcher)->bytes == "0");
    CHECK(zk.get("/none").error() == Errc::no_node);
    CHECK(zk.exists("/new", watcher).error() == Errc::no_node);
    CHECK(zk.children("/")->names == Lines{"n", "zookeeper"});
    CHECK(zk.linearizable().get("/n")->bytes == "0");
    CHECK(zk.at_least(before).get("/n")->bytes == "0");
    CHECK(zk.sync());
    CHECK(zk.whoami()->acl.empty());
    CHECK(zk.read(coord::Query::ephemerals())->names.empty());
    CHECK(zk.multi_read({coord::Query::get("/n"), coord::Query::list("/")})->parts.size() == 2);
    CHECK(zk.add_watch("/p", coord::AddWatchMode::persistent, watcher));
    CHECK(zk.remove_watches("/q").error() == Errc::no_watcher);
    CHECK(a.last() == before);
    REQUIRE(writer.set("/n", "1"));
    REQUIRE(writer.create("/new", ""));
    REQUIRE(writer.create("/p", ""));
    a.polls();
    CHECK(heard == Lines{"/n", "/new", "/p"});

    const Zxid after = a.last();
    Lines states;
    zk.session().on_state([&](SessionState state) { states.push_back(coord::name(state)); });
    bool is_closed = false;
    CHECK(a.replica.next_deadline() > a.now);
    zk.session().close([&](const coord::Result<void>& r) { is_closed = r.error() == Errc::ok; });
    CHECK(a.replica.next_deadline() <= a.now);
    a.poll();
    CHECK(is_closed);
    a.polls();
    CHECK(states == Lines{"CLOSED"});
    CHECK(zk.session().state() == SessionState::expired);
    CHECK(zk.get("/n").error() == Errc::session_expired);
    CHECK(a.last() == after);
    CHECK(a.replica.status().local_sessions == 1);
    CHECK(a.replica.status().watches == 0);
    CHECK(a.replica.counters().sessions_upgraded == 0);
}

TEST_CASE("its first write opens it for all, with what it has, and waits for that") {
    Alone a;
    const Sync zk = a.open_local();
    const SessionId id = zk.session().id();
    const SessionPassword password = zk.session().password();
    Lines heard;
    const auto watcher = [&](const coord::WatchEvent& event) { heard.push_back(event.path); };
    REQUIRE(zk.add_watch("/e", coord::AddWatchMode::persistent, watcher));
    const auto created = zk.create("/e", "x", CreateMode::ephemeral);
    REQUIRE(created);
    CHECK(created->stat.ephemeral_owner == id);
    CHECK(heard == Lines{"/e"});
    CHECK_FALSE(zk.session().is_local());
    CHECK(zk.session().id() == id);
    CHECK(is_same(zk.session().password(), password));
    CHECK(zk.session().timeout() == seconds(4));
    CHECK(zk.session().certain_until() > a.now);
    CHECK(a.replica.status().local_sessions == 0);
    CHECK(a.replica.counters().sessions_upgraded == 1);
    CHECK(a.replica.machine().find_session(id)->timeout_ms == 4000);
    CHECK(zk.read(coord::Query::ephemerals())->names == Lines{"/e"});
    CHECK(zk.set("/e", "y")->version == 1);
    CHECK(zk.close());
    CHECK_FALSE(a.replica.tree().contains("/e"));
    CHECK(a.replica.machine().find_session(id) == nullptr);
}

TEST_CASE("every write does, and add_auth; what is refused before does not") {
    Alone a;
    const Sync writer = a.open();
    REQUIRE(writer.create("/n", ""));
    for (int kind = 0; kind < 6; kind++) {
        CAPTURE(kind);
        const Sync zk = a.open_local();
        const Zxid before = a.last();
        CHECK(zk.create("no path", "").error() == Errc::bad_arguments);
        CHECK(zk.add_auth("foo", "x").error() == Errc::auth_failed);
        CHECK(zk.session().is_local());
        CHECK(a.last() == before);
        bool is_good = false;
        if (kind == 0) is_good = bool(zk.set("/n", "1"));
        if (kind == 1) is_good = bool(zk.create("/c", ""));
        if (kind == 2) is_good = bool(zk.remove("/c"));
        if (kind == 3) is_good = bool(zk.multi({(coord::Op::check)("/n")}));
        if (kind == 4) is_good = bool(zk.add_auth("digest", "u:p"));
        if (kind == 5) is_good = bool(zk.set_acl("/n", coord::open_acl()));
        CHECK(is_good);
        CHECK_FALSE(zk.session().is_local());
        CHECK(zk.whoami()->acl.empty() == (kind != 4));
    }
}

TEST_CASE("R9 answers come in the order of the calls, over the upgrade too") {
    Alone a;
    const Sync writer = a.open();
    REQUIRE(writer.create("/n", "0"));
    const Sync zk = a.open_local();
    Lines told;
    const auto got = [&](const coord::Result<coord::Data>& r) { told.push_back(r->bytes); };
    const auto set = [&](const coord::Result<coord::Stat>& r) {
        told.push_back("set " + std::to_string(r->version));
    };
    const Session& session = zk.session();
    session.get("/n", got);
    session.sync([&](const coord::Result<void>&) { told.push_back("sync"); });
    session.linearizable().get("/n", got);
    session.set("/n", "1", set);
    session.get("/n", got);
    session.linearizable().get("/n", got);
    session.set("/n", "2", set);
    session.get("/n", got);
    session.close([&](const coord::Result<void>& r) { told.push_back(coord::name(r.error())); });
    session.get("/n", [&](const coord::Result<coord::Data>& r) {
        told.push_back(coord::name(r.error()));
    });
    a.polls(20);
    CHECK(told == Lines{"0", "session_expired", "sync", "0", "set 1", "1", "1", "set 2", "2",
                        "ok"});
    CHECK(a.replica.machine().find_session(session.id()) == nullptr);
    CHECK(a.replica.status().local_sessions == 0);
}

TEST_CASE("R9 what stands behind a write refused at once is asked for, though a read is put off") {
    coord::ReplicaOptions options = session_rig::narrow(100, 4000, 10000);
    Alone a(options);
    const Sync other = a.open();
    REQUIRE(other.create("/n", Bytes(3990, 'd')));
    const Sync zk = a.open_local();
    int others = 0;
    for (int i = 0; i < 200; i++) {
        other.session().get("/n", [&](const coord::Result<coord::Data>&) { others += 1; });
    }
    Lines told;
    const auto tell = [&told](const auto& r) { told.push_back(coord::name(r.error())); };
    zk.session().get("/n", [&](const coord::Result<coord::Data>& r) { tell(r); });
    zk.session().set("/n", Bytes(5000, 'd'), [&](const coord::Result<coord::Stat>& r) { tell(r); });
    zk.session().sync([&](const coord::Result<void>& r) { tell(r); });
    a.polls(100);
    CHECK(others == 200);
    CHECK(told == Lines{"ok", "too_large", "ok"});
    CHECK(zk.session().is_local());
}

TEST_CASE("a guarded handle, and one below a path, go over it") {
    Alone a;
    const Sync writer = a.open();
    const auto guard = writer.create("/guard", "");
    REQUIRE(writer.create("/app", ""));
    const Sync zk = a.open_local();
    const Sync below = zk.below("/app");
    CHECK(below.exists("/x").error() == Errc::no_node);
    CHECK(zk.guarded_by("/guard", guard->stat.czxid).create("/g", ""));
    CHECK(below.create("/x", "1")->path == "/x");
    CHECK(below.get("/x")->bytes == "1");
    CHECK(zk.guarded_by("/guard", Zxid{1}).set("/g", "").error() == Errc::guard_lost);
    CHECK(zk.session().next_number() == 1);
}

TEST_CASE("an ACL: nobody's, until it says who it is") {
    Alone a;
    const Sync owner = a.open();
    REQUIRE(owner.add_auth("digest", "u:p"));
    REQUIRE(owner.create("/secret", "x", CreateMode::persistent, {}, coord::creator_acl()));
    const Sync zk = a.open_local();
    int heard = 0;
    const auto watcher = [&](const coord::WatchEvent&) { heard += 1; };
    CHECK(zk.get("/secret").error() == Errc::no_auth);
    CHECK(zk.exists("/secret", watcher));
    REQUIRE(owner.set("/secret", "y"));
    a.polls();
    CHECK(heard == 0);
    CHECK(zk.session().is_local());
    CHECK(zk.add_auth("digest", "u:p"));
    CHECK(zk.get("/secret", watcher)->bytes == "y");
    REQUIRE(owner.set("/secret", "z"));
    a.polls();
    CHECK(heard == 1);
}

TEST_CASE("changes are a stream for it, and go on over the upgrade") {
    coord::ReplicaOptions options;
    options.change_bytes_kept = 100000;
    Alone a(options);
    const Sync writer = a.open();
    REQUIRE(writer.create("/n", "0"));
    const Sync zk = a.open_local();
    Lines seen;
    const coord::SubscribeOptions from{a.replica.machine().applied()};
    const coord::Subscription all =
        zk.session().on_changes("/", from, [&](const coord::Change& change) {
            const bool is_over = change.type == coord::EventType::none;
            seen.push_back(is_over ? coord::name(change.error) : change.path);
        });
    REQUIRE(writer.create("/a", ""));
    REQUIRE(zk.create("/b", ""));
    REQUIRE(writer.create("/c", ""));
    a.polls();
    CHECK(seen == Lines{"/a", "/b", "/c"});
    CHECK(zk.close());
    a.polls();
    CHECK(seen.size() == 4);
    CHECK(seen.back() == "session_expired");
}

TEST_CASE("bounds: of local ones here, of requests in flight, of watches") {
    coord::ReplicaOptions options;
    options.limits.local_sessions_max = 3, options.limits.sessions_max = 2;
    options.limits.requests_per_session_max = 4;
    options.limits.watches_per_session_max = 2;
    Alone a(options);
    const Sync first = a.open_local(), second = a.open_local();
    first.session().sync({});  // one with something pending counts, too
    const Sync third = a.open_local();
    third.session().sync({});
    const auto refused = Sync::open(a.replica, local_options(), a.pump());
    CHECK(refused.error() == Errc::too_many);
    second.session().sync({}), third.session().sync({});
    const Sync replicated = a.open();  // has another bound, also where those have something pending
    CHECK(second.close());
    CHECK(a.open_local().session().is_local());

    const auto watcher = [](const coord::WatchEvent&) {};
    CHECK(first.exists("/1", watcher).error() == Errc::no_node);
    CHECK(first.exists("/2", watcher).error() == Errc::no_node);
    CHECK(first.exists("/3", watcher).error() == Errc::too_many);
    std::vector<Errc> ends;
    for (int i = 0; i < 5; i++) {
        first.session().set("/", "", [&](const coord::Result<coord::Stat>& r) {
            ends.push_back(r.error());
        });
    }
    a.polls();
    CHECK(ends == std::vector<Errc>{Errc::too_many, Errc::ok, Errc::ok, Errc::ok, Errc::ok});
}

TEST_CASE("too_many at the upgrade: the writes asked for get it, and it is local still") {
    coord::ReplicaOptions options;
    options.limits.sessions_max = 1;
    Alone a(options);
    const Sync other = a.open();
    REQUIRE(other.create("/n", "0"));
    const Sync zk = a.open_local();
    Lines told;
    const auto set = [&](const coord::Result<coord::Stat>& r) {
        told.push_back(coord::name(r.error()));
    };
    int heard = 0;
    REQUIRE(zk.exists("/n", [&](const coord::WatchEvent&) { heard += 1; }));
    zk.session().set("/n", "1", set);
    zk.session().get("/n", [&](const coord::Result<coord::Data>& r) { told.push_back(r->bytes); });
    zk.session().set("/n", "2", set);
    a.polls();
    CHECK(told == Lines{"too_many", "0", "too_many"});
    CHECK(zk.session().is_local());
    CHECK(zk.get("/n")->bytes == "0");
    REQUIRE(other.set("/n", "3"));
    a.polls();
    CHECK(heard == 1);
    CHECK(zk.set("/n", "4").error() == Errc::too_many);
    SUBCASE("what stands behind them is asked for") {
        told.clear();
        zk.session().set("/n", "6", set);
        zk.session().linearizable().get("/n", [&](const coord::Result<coord::Data>& r) {
            told.push_back(r->bytes);
        });
        zk.session().set("/n", "7", set);
        zk.session().sync([&](const coord::Result<void>& r) {
            told.push_back(coord::name(r.error()));
        });
        a.polls(300);
        CHECK(told == Lines{"too_many", "3", "too_many", "ok"});
        CHECK(zk.session().is_local());
    }
    SUBCASE("where there is room it is opened after all") {
        CHECK(other.close());
        CHECK(zk.set("/n", "5"));
        CHECK_FALSE(zk.session().is_local());
    }
    SUBCASE("a close behind a write that is refused asks nobody") {
        const auto write = [&] { zk.session().set("/n", "6", set); };
        write();
        zk.session().close([&](const coord::Result<void>& r) {
            told.push_back(coord::name(r.error()));
        });
        told.clear();
        a.polls();
        CHECK(told == Lines{"too_many", "ok"});
        CHECK(a.replica.status().local_sessions == 0);
        CHECK(a.replica.machine().sessions().size() == 1);
    }
}

TEST_CASE("the same entropy after a restart gives no id again") {
    Alone before;
    const SessionId first = before.open_local().session().id();
    Alone same;
    CHECK(same.open_local().session().id() == first);  // the same run
    Alone after;
    REQUIRE(after.open().create("/n", ""));
    CHECK(after.open_local().session().id() != first);
}

TEST_CASE("one that waits for what never comes ends with its close, and with its replica") {
    Alone a;
    const Sync zk = a.open_local();
    Lines told;
    zk.session().at_least(Zxid{999, 1}).get("/", [&](const coord::Result<coord::Data>& r) {
        told.push_back(coord::name(r.error()));
    });
    a.polls();
    CHECK(told.empty());
    SUBCASE("close") {
        CHECK(zk.close());
        CHECK(told == Lines{"cancelled"});
    }
    SUBCASE("its replica") {}  // what is pending goes with it, untold
}

TEST_CASE("a failed replica answers replica_failed to all that waits, and opens none") {
    coord::MemoryStorage disk;
    coord::Replica replica({}, disk);
    coord::Time now{1000000000};
    Lines told;
    Session::open(replica, local_options(), [&](const coord::Result<Session>& opened) {
        REQUIRE(opened);
        opened->set("/", "", [&](const coord::Result<coord::Stat>& r) {
            told.push_back(coord::name(r.error()));
        });
        disk.fail();
    });
    for (int i = 0; i < 20; i++) now = now + milliseconds(1), replica.poll(now);
    Session::open(replica, local_options(), [&](const coord::Result<Session>& opened) {
        told.push_back(coord::name(opened.error()));
    });
    for (int i = 0; i < 3; i++) now = now + milliseconds(1), replica.poll(now);
    CHECK(told == Lines{"replica_failed", "replica_failed"});
}

// -- Ensembles -------------------------------------------------------------------------------

TEST_CASE("it opens, reads and watches where there is no leader, and nobody else knows of it") {
    Ensemble all;
    const std::uint32_t at = all.follower(0), other = all.follower(1);
    const Sync writer = all.open(at, seconds(30));
    REQUIRE(writer.create("/n", "0"));
    all.sim.isolate(at);
    all.sim.run_for(seconds(3));
    CHECK_FALSE(all.sim.replica(at).status().serving);
    const Zxid before = all.sim.replica(at).log().last().zxid;
    const Sync zk = all.open_local(at);
    CHECK(zk.session().state() == SessionState::suspended);
    std::vector<coord::WatchEvent> heard;
    CHECK(zk.get("/n", [&](const coord::WatchEvent& event) { heard.push_back(event); })->bytes ==
          "0");
    Lines states, told;
    zk.session().on_state([&](SessionState state) { states.push_back(coord::name(state)); });
    zk.session().linearizable().get("/n", [&](const coord::Result<coord::Data>& r) {
        told.push_back(r->bytes);
    });
    const Sync brief = all.open_local(at);  // its close waits for what it has asked before
    bool is_closed = false;
    brief.session().sync({});
    brief.session().close([&](const coord::Result<void>& r) { is_closed = r.error() == Errc::ok; });
    all.sim.run_for(seconds(20));  // longer than its timeout: it does not expire
    CHECK(told.empty());
    CHECK_FALSE(is_closed);
    CHECK(zk.session().state() == SessionState::suspended);
    CHECK(all.sim.replica(at).log().last().zxid == before);
    const Sync far = all.open(other, seconds(30));
    REQUIRE(far.set("/n", "1"));
    all.sim.heal();
    REQUIRE(all.sim.run_until([&] { return !told.empty(); }, seconds(10)));
    CHECK(told == Lines{"1"});
    CHECK(heard.size() == 1);
    CHECK(states == Lines{"CONNECTED"});
    all.sim.run_for(seconds(20));
    CHECK(is_closed);
    CHECK(zk.session().state() == SessionState::connected);
    CHECK(zk.get("/n")->bytes == "1");
    CHECK(zk.session().is_local());
    for (const std::uint32_t id : {1u, 2u, 3u}) {
        CHECK_FALSE(all.has_record(id, zk.session().id()));
        CHECK(all.attach(id, zk.session().id(), zk.session().password()).error() ==
              Errc::session_expired);
    }
    CHECK(zk.session().is_local());
}

TEST_CASE("local sessions of two replicas are not each other's, and upgraded ones live on") {
    Ensemble all;
    std::vector<Sync> zks;
    for (const std::uint32_t id : {1u, 2u, 3u}) zks.push_back(all.open_local(id));
    CHECK(zks[0].session().id() != zks[1].session().id());
    CHECK(zks[1].session().id() != zks[2].session().id());
    for (std::size_t i = 0; i < 3; i++) {
        const Bytes path = "/" + std::to_string(i);
        CHECK(zks[i].create(path, "", CreateMode::ephemeral));
    }
    all.sim.run_for(seconds(30));
    for (std::size_t i = 0; i < 3; i++) {
        CHECK(zks[i].session().state() == SessionState::connected);
        CHECK(zks[i].session().certain_until() > all.sim.clock(static_cast<std::uint32_t>(i + 1)));
        CHECK(all.sees(1, "/" + std::to_string(i)));
    }
    // Its replica goes, and so does it, for all; or somebody has it in time.
    const SessionId kept = zks[0].session().id();
    const SessionPassword password = zks[0].session().password();
    all.sim.crash(1);
    const auto attached = all.attach(2, kept, password);
    REQUIRE(attached);
    CHECK(attached->id() == kept);
    all.sim.run_for(seconds(20));
    CHECK(all.sees(2, "/0"));
    CHECK(Sync(*attached, all.sim.pump()).set("/0", "x"));
    all.sim.crash(3);
    all.sim.restart(1);
    all.sim.run_for(seconds(20));
    CHECK_FALSE(all.sees(2, "/2"));
    CHECK(all.sees(1, "/0"));
}

TEST_CASE("D3 closed while it is being opened for all: nothing of it stays, in any order") {
    for (std::uint64_t seed = 1; seed <= 30; seed++) {
        CAPTURE(seed);
        Ensemble all(seed);
        const std::uint32_t at = seed % 3 == 0 ? all.leader() : all.follower(seed % 2);
        const Sync zk = all.open_local(at);
        const SessionId id = zk.session().id();
        Lines told;
        const auto create = [&] {
            zk.session().create("/e", "", CreateMode::ephemeral, [&](const auto& r) {
                told.push_back(coord::name(r.error()));
            });
        };
        const auto close = [&] {
            zk.session().close(
                [&](const auto& r) { told.push_back(coord::name(r.error())); });
        };
        create();
        if (seed % 5 != 0) {
            all.sim.run_for(coord::microseconds(static_cast<std::int64_t>(seed * 40)));
        }
        close();
        if (seed % 7 == 0) all.sim.crash(all.leader() == at ? all.follower(0) : all.leader());
        REQUIRE(all.sim.run_until([&] { return told.size() == 2; }, seconds(30)));
        CHECK(told == Lines{"ok", "ok"});
        CHECK(zk.session().state() == SessionState::expired);
        all.sim.run_for(seconds(1));
        CHECK_FALSE(all.sees(at, "/e"));
        CHECK_FALSE(all.has_record(at, id));
        CHECK(all.sim.replica(at).status().local_sessions == 0);
    }
}

TEST_CASE("R14 its replica ends while it is being opened for all: the record expires") {
    for (std::uint64_t seed = 1; seed <= 20; seed++) {
        CAPTURE(seed);
        Ensemble all(seed);
        const std::uint32_t at = all.follower(0), other = all.follower(1);
        const Sync zk = all.open_local(at);
        const SessionId id = zk.session().id();
        zk.session().create("/e", "", CreateMode::ephemeral, {});
        all.sim.run_for(coord::microseconds(static_cast<std::int64_t>((seed - 1) * 100)));
        all.sim.crash(at);
        all.sim.run_for(seconds(1));
        const bool was_opened = all.has_record(other, id);
        if (seed > 15) CHECK(was_opened);
        if (seed < 2) CHECK_FALSE(was_opened);
        all.sim.restart(at);
        all.sim.run_for(seconds(20));
        CHECK_FALSE(all.has_record(other, id));
        CHECK_FALSE(all.sees(other, "/e"));
    }
}

TEST_CASE("R14 over a change of leaders it is opened once, and its writes are done once") {
    for (std::uint64_t seed = 1; seed <= 20; seed++) {
        CAPTURE(seed);
        Ensemble all(seed);
        const std::uint32_t at = all.follower(0), leader = all.leader();
        const Sync zk = all.open_local(at);
        std::vector<Errc> ends;
        for (int i = 0; i < 3; i++) {
            zk.session().create("/n-", "", CreateMode::persistent_sequential, [&](const auto& r) {
                ends.push_back(r.error());
            });
        }
        all.sim.run_for(coord::microseconds(static_cast<std::int64_t>(seed * 80)));
        all.sim.isolate(leader);
        REQUIRE(all.sim.run_until([&] { return ends.size() == 3; }, seconds(30)));
        CHECK(ends == std::vector<Errc>(3, Errc::ok));
        all.sim.heal();
        all.sim.run_for(seconds(10));
        CHECK(zk.session().state() == SessionState::connected);
        CHECK(zk.children("/")->names ==
              Lines{"n-0000000000", "n-0000000001", "n-0000000002", "zookeeper"});
        CHECK(all.sim.replica(at).counters().sessions_upgraded == 1);
        CHECK(all.sim.replica(at).machine().sessions().size() == 1);
    }
}

TEST_CASE("R14 a replica that is told of the opening by a snapshot goes on from there") {
    Ensemble all(3, 50);
    const std::uint32_t first = all.follower(0), second = all.follower(1);
    const Sync other = all.open(second, seconds(60));
    REQUIRE(other.create("/n", ""));
    all.sim.run_for(seconds(1));
    const Sync zk = all.open_local(first, seconds(15)), idle = all.open_local(first);
    coord::Replica& leader = all.sim.replica(all.leader());
    const Zxid before = leader.log().last().zxid;
    std::vector<Errc> ends;
    zk.session().create("/e", "", CreateMode::ephemeral, [&](const auto& r) {
        ends.push_back(r.error());
    });
    int heard = 0;
    REQUIRE(idle.exists("/n", [&](const coord::WatchEvent&) { heard += 1; }));
    REQUIRE(all.sim.run_until([&] { return leader.log().last().zxid > before; }, seconds(5)));
    all.sim.isolate(first);  // it is numbered, and its replica does not hear that it is committed
    const SessionId id = zk.session().id();
    REQUIRE(all.sim.run_until([&] { return all.has_record(second, id); }, seconds(5)));
    SUBCASE("and it lives still") {
        all.sim.run_for(seconds(5));  // now nothing is kept for it
        for (int i = 0; i < 500; i++) REQUIRE(other.set("/n", std::to_string(i)));
        CHECK(all.has_record(second, id));
        REQUIRE(ends.empty());
        all.sim.heal();
        REQUIRE(all.sim.run_until([&] { return !ends.empty(); }, seconds(10)));
        CHECK(ends[0] == Errc::ok);
    }
    SUBCASE("and it has ended meanwhile, or was never opened: it cannot know, and is over") {
        all.sim.run_for(seconds(40));
        CHECK_FALSE(all.has_record(second, id));
        for (int i = 0; i < 500; i++) REQUIRE(other.set("/n", std::to_string(i)));
        REQUIRE(ends.empty());
        all.sim.heal();
        REQUIRE(all.sim.run_until([&] { return !ends.empty(); }, seconds(10)));
        CHECK(ends[0] == Errc::session_expired);
        CHECK(zk.session().state() == SessionState::expired);
        all.sim.run_for(seconds(10));
        CHECK_FALSE(all.has_record(second, id));
    }
    SUBCASE("and somebody has attached it meanwhile") {
        const auto attached = all.attach(second, id, zk.session().password());
        REQUIRE(attached);
        all.sim.run_for(seconds(5));
        for (int i = 0; i < 500; i++) REQUIRE(other.set("/n", std::to_string(i)));
        all.sim.heal();
        REQUIRE(all.sim.run_until([&] { return !ends.empty(); }, seconds(10)));
        CHECK(ends[0] == Errc::session_moved);
        CHECK(zk.session().state() == SessionState::moved);
        CHECK(attached->state() == SessionState::connected);
    }
    CHECK(all.sim.replica(first).counters().snapshots_installed == 1);
    CHECK(idle.session().is_local());
    all.sim.run_for(seconds(1));
    CHECK(heard == 1);
    CHECK(idle.get("/n")->bytes == "499");
    CHECK(all.sees(second, "/e") == (ends[0] == Errc::ok));
}

TEST_CASE("Z14 copies of its opening come late, and open nothing") {
    for (std::uint64_t seed = 1; seed <= 10; seed++) {
        CAPTURE(seed);
        coord::SimulationOptions options = Ensemble::options(seed);
        options.replica.limits.sessions_max = 2;
        Ensemble all(options);
        const std::uint32_t at = all.follower(0);
        const Sync other = all.open(all.follower(1), seconds(20));
        const Sync second = all.open(all.follower(1), seconds(20));
        coord::SimulatedNetwork network = all.sim.network();
        network.repeat_permille = 1000, network.delay_max = seconds(3);
        all.sim.set_network(network);
        const Sync zk = all.open_local(at), brief = all.open_local(at);
        CHECK(zk.create("/refused", "").error() == Errc::too_many);
        REQUIRE(second.close());
        CHECK(brief.create("/done-", "", CreateMode::persistent_sequential));
        CHECK(brief.close());
        for (int i = 0; i < 400; i++) {
            all.sim.run_for(milliseconds(10));
            for (const std::uint32_t id : {1u, 2u, 3u}) {
                REQUIRE_FALSE(all.has_record(id, zk.session().id()));
                REQUIRE_FALSE(all.has_record(id, brief.session().id()));
            }
        }
        CHECK(zk.session().is_local());
        CHECK(zk.children("/")->names == Lines{"done-0000000000", "zookeeper"});
        CHECK(zk.create("/now", ""));
        CHECK_FALSE(zk.session().is_local());
        all.sim.run_for(seconds(5));
        CHECK(zk.session().state() == SessionState::connected);
    }
}

TEST_CASE("thousands of local sessions cost a heartbeat nothing") {
    Ensemble all;
    const std::uint32_t at = all.follower(0);
    const auto sent = [&] { return all.sim.replica(at).counters().bytes_sent; };
    const auto idle_bytes = [&] {
        all.sim.run_for(seconds(1));
        const std::uint64_t before = sent();
        all.sim.run_for(seconds(10));
        return sent() - before;
    };
    const std::uint64_t before = idle_bytes();
    const Zxid last = all.sim.replica(at).log().last().zxid;
    std::size_t opened = 0;
    for (int i = 0; i < 3000; i++) {
        Session::open(all.sim.replica(at), local_options(), [&](const coord::Result<Session>& r) {
            REQUIRE(r);
            opened += 1;
            r->get("/", [](const coord::WatchEvent&) {}, {});
        });
    }
    all.sim.run_for(seconds(1));
    CHECK(opened == 3000);
    CHECK(all.sim.replica(at).status().local_sessions == 3000);
    CHECK(all.sim.replica(at).status().watches == 3000);
    CHECK(all.sim.replica(at).log().last().zxid == last);
    const std::uint64_t after = idle_bytes();
    CHECK(after < before + 3000);  // not eight bytes for each of them, each time
}

}  // TEST_SUITE
