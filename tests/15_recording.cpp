#include "support.hpp"

#include <algorithm>
#include <memory>
#include <vector>

using coord::Bytes;
using coord::BytesView;
using coord::Errc;
using coord::microseconds;
using coord::milliseconds;
using coord::PeerId;
using coord::Recorder;
using coord::Replay;
using coord::Replica;
using coord::ReplicaOptions;
using coord::seconds;
using coord::Session;
using coord::Simulation;
using coord::SimulationOptions;
using coord::Sync;
using coord::Time;
using coord::Zxid;

namespace {

constexpr std::size_t room = 16 * 1024 * 1024;

Bytes taken(Recorder& recorder) {
    Bytes out;
    recorder.take(out);
    return out;
}

// V4: everything that can be seen of a replica, and the memory of it in one number.
void check_same(const Replica& lived, const Replica& replayed) {
    CHECK(lived.state_json() == replayed.state_json());
    CHECK(lived.next_deadline() == replayed.next_deadline());
    std::vector<std::uint64_t> numbers;
    lived.visit_metrics([&numbers](const coord::Metric& each) { numbers.push_back(each.value); });
    std::size_t place = 0;
    replayed.visit_metrics([&numbers, &place](const coord::Metric& each) {
        CAPTURE(each.name);
        CHECK(each.value == numbers[place++]);
    });
    CHECK(lived.machine().digest() == replayed.machine().digest());
    replayed.audit();
}

void check_replays(Recorder& recorder, const Replica& lived) {
    CHECK(BytesView(recorder.ended()) == "");
    const Bytes recording = taken(recorder);
    Replay replay(recording);
    REQUIRE(replay.error() == Errc::ok);
    replay.run();
    CHECK(replay.differs_at() == 0);
    CHECK(replay.bytes_left() == 0);
    check_same(lived, replay.replica());
}

// A program of one replica, whose recording is under test.
struct Program {
    explicit Program(ReplicaOptions with = {}, std::size_t bytes_max = room)
        : recorder(bytes_max), options(std::move(with)) {
        options.recorder = &recorder;
        start();
    }
    void start() { replica.reset(), replica = std::make_unique<Replica>(options, disk); }
    bool poll() {
        now = now + milliseconds(1);
        replica->poll(now, 1600000000000 + now.ns / 1000000);
        return true;
    }
    Sync open(coord::SessionOptions session = {}) {
        const auto opened = Sync::open(*replica, session, [this] { return poll(); });
        REQUIRE(opened);
        return Sync(*opened, [this] { return poll(); });
    }
    coord::MemoryStorage disk;
    Recorder recorder;
    ReplicaOptions options;
    std::unique_ptr<Replica> replica;
    Time now;
};

SimulationOptions rough(std::uint64_t seed) {
    SimulationOptions options;
    options.seed = seed;
    options.observers = 1;
    options.replica.feeders = {PeerId{1}, PeerId{2}};
    options.network.latency_max = milliseconds(5);
    options.network.loss_permille = 50;
    options.network.repeat_permille = 50;
    options.network.delay_permille = 50;
    options.network.damage_permille = 10;
    options.disk.flush_max = milliseconds(3);
    options.clocks.rate_permille_min = 980;
    options.clocks.rate_permille_max = 1020;
    options.clocks.wall_error_max = seconds(1);
    options.poll_delay_max = microseconds(500);
    options.replica.snapshot_every_entries = 40;
    options.replica.log_entries_kept = 10;
    options.replica.change_bytes_kept = 64 * 1024;
    options.recording_bytes = room;
    return options;
}

}  // namespace

TEST_SUITE("15 recording") {

TEST_CASE("a replica that has done something is what its recording becomes") {
    Program program;
    const Sync zk = program.open();
    REQUIRE(zk.create("/a", "one"));
    REQUIRE(zk.set("/a", "two"));
    CHECK(zk.get("/a")->bytes == "two");
    check_replays(program.recorder, *program.replica);
}

TEST_CASE("each replica of an ensemble in a rough world replays, also what it was before it fell") {
    for (std::uint64_t seed = support::seed_or(1); seed < support::seed_or(1) + 8; seed++) {
        CAPTURE(seed);
        Simulation sim(rough(seed));
        int lives = 0;
        sim.before_crash([&](PeerId id) {
            check_replays(sim.recorder(id), sim.replica(id));
            lives += 1;
        });
        std::vector<Session> sessions;
        for (std::uint32_t id = 1; id <= sim.size(); id++) {
            sim.replica(id).open_session({}, [&sim, &sessions, id](auto opened) {
                if (!opened) return;
                Session session(sim.replica(id), *opened);
                session.create("/a" + std::to_string(id), "", [session](auto) {
                    for (int i = 0; i < 60; i++) {
                        session.create("/a1/s-", Bytes(100, 'x'),
                                       coord::CreateMode::ephemeral_sequential, nullptr);
                    }
                });
                session.get("/a1", [](const coord::WatchEvent&) {}, nullptr);
                sessions.push_back(session);
            });
        }
        sim.run_for(seconds(3));
        const auto leads = [&sim] { return sim.leader() != PeerId{}; };
        REQUIRE(sim.run_until(leads, seconds(20)));
        const PeerId leader = sim.leader();
        sim.forget(leader == PeerId{3} ? 2 : 3, leader);  // which is wrong, and costs an election
        sim.run_for(milliseconds(1));
        sim.crash(1);
        sim.run_for(seconds(2));
        sim.restart(1);
        sim.run_for(seconds(3));
        CHECK(lives == 1);
        for (std::uint32_t id = 1; id <= sim.size(); id++) {
            CAPTURE(id);
            check_replays(sim.recorder(id), sim.replica(id));
        }
    }
}

TEST_CASE("recording changes nothing of a run") {
    const auto hash_of = [](std::size_t recording_bytes) {
        SimulationOptions options = rough(support::seed_or(5));
        options.recording_bytes = recording_bytes;
        Simulation sim(options);
        sim.run_for(seconds(5));
        return sim.hash();
    };
    CHECK(hash_of(0) == hash_of(room));
}

TEST_CASE("what is called in callbacks has its place, also where it undoes what called it") {
    ReplicaOptions options;
    options.change_bytes_kept = 4096;
    Program program(options);
    const Sync zk = program.open();
    const Session& session = zk.session();
    session.create("/a", "", [session](auto) { session.create("/a/b", "", nullptr); });
    session.create("/c", "", [](auto) {});
    session.get("/a", [session](const coord::WatchEvent&) { session.set("/c", "seen", nullptr); },
                nullptr);
    program.replica->at(Time{} + milliseconds(20), [&] {
        session.set("/a", "x", nullptr);
        program.replica->at(Time{} + milliseconds(25), [session] { session.sync(nullptr); });
    });
    session.on_state([session](coord::SessionState) { session.create("/gone", "", nullptr); });
    // One that goes in its own callback, after the first of two changes; one that is read there.
    auto first = std::make_unique<coord::Subscription>();
    int heard = 0;
    *first = session.on_changes("/", {}, [&](const coord::Change&) {
        heard += 1;
        first.reset();
        session.create("/heard", "", nullptr);
    });
    coord::Subscription second;
    second = session.subscribe("/", {}, [&] { (void)second.take(2); });
    for (int i = 0; i < 60; i++) program.poll();
    CHECK(heard == 1);
    (void)second.take();
    session.close([](auto) {});
    for (int i = 0; i < 10; i++) program.poll();
    CHECK(program.replica->tree().find("/heard"));
    check_replays(program.recorder, *program.replica);
}

TEST_CASE("sessions are opened, attached and judged again as they were") {
    ReplicaOptions options;
    options.schemes = {"token"};
    options.judge_credential = [](BytesView, BytesView credential, Bytes& id) {
        id = "who";
        return credential == "good";
    };
    Program program(options);
    coord::SessionOptions with;
    with.password = {1, 2};
    with.timeout = seconds(3);
    const Sync zk = program.open(with);
    int refused = 0;
    zk.session().add_auth("token", "bad", [&](auto done) { refused += done ? 0 : 1; });
    zk.session().add_auth("token", "good", nullptr);
    zk.session().create("/a", coord::null_data, coord::CreateMode::persistent, {},
                        coord::creator_acl(), nullptr);
    std::vector<coord::Op> parts;
    parts.push_back(coord::Op::create_with_parents("/b/c", "1"));
    parts.push_back(coord::Op::has_data("/b/c", "1"));
    zk.session().multi(parts, [](const coord::Multi&) {});
    zk.session().multi_read({coord::Query::get("/a"), coord::Query::list("/")}, [](auto) {});
    for (int i = 0; i < 10; i++) program.poll();
    CHECK(refused == 1);
    CHECK(program.replica->machine().find_session(zk.session().id())->identities.size() > 0);
    with.is_local = true;
    const Sync local = program.open(with);
    local.session().exists("/a", nullptr);
    Session::attach(*program.replica, zk.session().id(), {1, 2}, [](auto) {});
    Session::attach(*program.replica, zk.session().id(), {1, 3}, nullptr);
    for (int i = 0; i < 20; i++) program.poll();
    check_replays(program.recorder, *program.replica);
}

TEST_CASE("a start on what a storage holds is recorded with that") {
    ReplicaOptions options;
    options.snapshot_every_entries = 20;
    options.log_entries_kept = 3;
    Program program(options);
    for (int life = 0; life < 3; life++) {
        const Sync zk = program.open();
        for (int i = 0; i < 50; i++) {
            REQUIRE(zk.create("/s-", Bytes(2000, 'x'), coord::CreateMode::persistent_sequential));
        }
        for (int i = 0; i < 50; i++) program.poll();
        CHECK(program.replica->counters().snapshots_taken > 0);
        check_replays(program.recorder, *program.replica);
        program.start();
    }
    for (int i = 0; i < 50; i++) program.poll();
    CHECK(program.replica->tree().size() > 150);
    check_replays(program.recorder, *program.replica);
}

TEST_CASE("what a storage does wrong is recorded") {
    Program program;
    const Sync zk = program.open();
    REQUIRE(zk.create("/a", ""));
    SUBCASE("it is full for a while") {
        program.disk.set_full(true);
        zk.session().create("/b", Bytes(100, 'x'), nullptr);
        for (int i = 0; i < 5; i++) program.poll();
        program.disk.set_full(false);
        for (int i = 0; i < 5; i++) program.poll();
    }
    SUBCASE("it fails") {
        zk.session().create("/b", "", nullptr);
        program.disk.fail();
        for (int i = 0; i < 5; i++) program.poll();
        CHECK(program.replica->status().role == coord::Role::failed);
    }
    SUBCASE("it is slow") {
        program.disk.hold_flushes();
        for (int i = 0; i < 5; i++) {
            zk.session().create("/c" + std::to_string(i), "", nullptr);
            program.poll();
        }
        program.disk.release(program.disk.durable() + 2);
        for (int i = 0; i < 5; i++) program.poll();
        program.disk.stop_holding();
        for (int i = 0; i < 5; i++) program.poll();
    }
    check_replays(program.recorder, *program.replica);
}

TEST_CASE("a storage that makes durable what it will, whenever it is asked, is recorded") {
    // As one does that has a thread.
    struct Restless final : support::Forwarding {
        explicit Restless(coord::MemoryStorage& memory) : Forwarding(memory), disk(memory) {}
        coord::Sequence durable() const override {
            asked += 1;
            if (asked % 3 == 0) disk.release(disk.durable() + 1);
            return disk.durable();
        }
        coord::MemoryStorage& disk;
        mutable int asked = 0;
    };
    coord::MemoryStorage memory;
    memory.hold_flushes();
    Restless disk(memory);
    Recorder recorder(room);
    ReplicaOptions options;
    options.recorder = &recorder;
    Replica replica(options, disk);
    replica.open_session({}, [&replica](auto opened) {
        for (int i = 0; i < 40; i++) {
            Session(replica, *opened).create("/a" + std::to_string(i), "", nullptr);
        }
    });
    for (int i = 1; i < 200; i++) replica.poll(Time{} + milliseconds(i));
    CHECK(replica.tree().find("/a39"));
    check_replays(recorder, replica);
}

TEST_CASE("a replica that its options or its storage do not let live has a recording") {
    SUBCASE("options") {
        ReplicaOptions options;
        options.timing.heartbeat = coord::Duration{};
        Program program(options);
        CHECK(program.replica->status().role == coord::Role::failed);
        check_replays(program.recorder, *program.replica);
    }
    SUBCASE("a storage of another ensemble") {
        Program program;
        REQUIRE(program.open().create("/a", ""));
        program.options.ensemble = 7;
        program.start();
        program.poll();
        check_replays(program.recorder, *program.replica);
    }
}

TEST_CASE("sealed messages are replayed with the keys, which are not in the recording") {
    const std::vector<Bytes> keys{"0123456789abcdefFEDCBA9876543210"};
    SimulationOptions options = rough(support::seed_or(3));
    options.replica.ensemble_keys = keys;
    options.network.third_party_permille = 100;
    Simulation sim(options);
    sim.run_for(seconds(3));
    const Bytes recording = taken(sim.recorder(2));
    CHECK(sim.replica(2).status().serving);
    CHECK(sim.replica(2).counters().dropped_unsealed > 0);
    CHECK(recording.find(keys[0].substr(0, 8)) == Bytes::npos);
    Replay replay(recording, keys);
    REQUIRE(replay.error() == Errc::ok);
    replay.run();
    CHECK(replay.differs_at() == 0);
    check_same(sim.replica(2), replay.replica());
    CHECK(Replay(recording).error() == Errc::bad_arguments);
    Replay other(recording, {Bytes(32, 'k')});
    other.run();
    CHECK(other.differs_at() > 0);
}

TEST_CASE("a full recorder says so, and what there is replays") {
    Program program({}, 3000);
    const Sync zk = program.open();
    int writes = 0;
    std::uint64_t digest = 0;
    while (BytesView(program.recorder.ended()).empty() && writes < 1000) {
        digest = program.replica->machine().digest();
        zk.session().create("/s-", "", coord::CreateMode::persistent_sequential, nullptr);
        program.poll();
        writes += 1;
    }
    CHECK(BytesView(program.recorder.ended()) == "it is full");
    CHECK(program.recorder.bytes() <= 3000);
    CHECK(writes > 10);
    program.poll();
    const Bytes recording = taken(program.recorder);
    CHECK(program.recorder.bytes() == 0);
    program.poll();
    CHECK(program.recorder.bytes() == 0);  // there would be a gap
    Replay replay(recording);
    REQUIRE(replay.error() == Errc::ok);
    replay.run();
    CHECK(replay.differs_at() == 0);
    CHECK(replay.replica().machine().digest() == digest);
}

TEST_CASE("pieces that were taken, one after the other, are the recording") {
    Program program;
    Bytes pieces;
    const Sync zk = program.open();
    const Session session = zk.session();
    for (int i = 0; i < 50; i++) {
        session.create("/a" + std::to_string(i), "", [&, session](auto) {
            session.exists("/a1", nullptr);
            program.recorder.take(pieces);  // in the midst of a poll
            session.exists("/a2", nullptr);
        });
        if (i % 3 == 0) program.recorder.take(pieces);
        program.poll();
    }
    program.recorder.take(pieces);
    Replay replay(pieces);
    REQUIRE(replay.error() == Errc::ok);
    replay.run();
    CHECK(replay.differs_at() == 0);
    check_same(*program.replica, replay.replica());
}

TEST_CASE("a poll that did not end is not among the steps, and can be stepped into") {
    Program program;
    const Sync zk = program.open();
    Bytes recording;
    zk.session().create("/a", "", [&](auto) {
        zk.session().create("/b", "", nullptr);
        program.recorder.take(recording);
    });
    program.poll();
    program.poll();
    REQUIRE(!recording.empty());
    Replay replay(recording);
    CHECK(!replay.step_into());  // it has not come to that
    replay.run();
    CHECK(replay.differs_at() == 0);
    CHECK(!replay.replica().tree().find("/a"));
    const std::uint64_t before = replay.calls();
    CHECK(replay.step_into());
    CHECK(replay.calls() == before + 2);
    CHECK(replay.differs_at() == 0);
    CHECK(replay.replica().tree().find("/a"));
    CHECK(replay.replica().counters().requests == program.replica->counters().requests);
    CHECK(!replay.step());
    CHECK(!replay.step_into());
}

TEST_CASE("of a recording that is cut off or damaged all that is before that replays") {
    Program program;
    const Sync zk = program.open();
    Bytes recording;
    for (int i = 0; i < 6; i++) {
        REQUIRE(zk.create("/a" + std::to_string(i), Bytes(300, 'x')));
        program.recorder.take(recording);
    }
    Replay whole(recording);
    whole.run();
    std::uint64_t calls = 0;
    for (std::size_t size = 0; size <= recording.size(); size += 7) {
        CAPTURE(size);
        Replay replay(BytesView(recording).substr(0, size));
        if (replay.error() == Errc::ok) {
            replay.run();
            CHECK(replay.calls() >= calls);
            calls = replay.calls();
            CHECK(replay.differs_at() == 0);
            CHECK(replay.bytes_left() < 2 * recording.size() / 6);
        } else {
            CHECK(replay.error() == Errc::corrupt);
            CHECK(calls == 0);
        }
    }
    for (std::size_t place = recording.size() / 6; place < recording.size(); place += 13) {
        CAPTURE(place);
        Bytes damaged = recording;
        damaged[place] = static_cast<char>(damaged[place] ^ 4);
        Replay replay(damaged);
        if (replay.error() != Errc::ok) continue;
        replay.run();
        CHECK(replay.differs_at() == 0);
        CHECK(replay.bytes_left() > 0);
        CHECK(replay.calls() < whole.calls());
    }
}

TEST_CASE("the first call that does something else is named") {
    Program program;
    const Sync zk = program.open();
    REQUIRE(zk.create("/first", "one"));
    REQUIRE(zk.create("/other", "two"));
    Bytes recording = taken(program.recorder);
    REQUIRE(recording.size() < 4096 + 2000);
    const std::size_t place = recording.find("/other");
    REQUIRE(place != Bytes::npos);
    recording[place + 1] = 'O';  // and with the right checksum: as if it did something else now
    coord::Writer(recording).patch_u32(
        4, coord::crc32c(BytesView(recording).substr(8, coord::Reader(recording).u32())));
    Replay replay(recording);
    REQUIRE(replay.error() == Errc::ok);
    std::uint64_t submitted = 0;
    while (replay.step()) {
        if (replay.text().find("/Other") != Bytes::npos) submitted = replay.calls();
    }
    REQUIRE(submitted > 0);
    CHECK(replay.differs_at() == submitted + 1);  // the poll after it
    CHECK(replay.calls() == replay.differs_at());
}

TEST_CASE("a call in the midst of a step ends the recording before it") {
    struct Caller {
        explicit Caller(Replica& of) : replica(of) {}
        ~Caller() { replica.at(Time{}, [] {}); }
        Replica& replica;
    };
    Program program;
    const Sync zk = program.open();
    const Sync other = program.open();
    REQUIRE(zk.create("/a", ""));
    const auto caller = std::make_shared<Caller>(*program.replica);
    zk.session().add_watch("/a", coord::AddWatchMode::persistent,
                           [caller](const coord::WatchEvent&) {}, nullptr);
    program.poll();
    const_cast<std::shared_ptr<Caller>&>(caller).reset();
    zk.session().close(nullptr);
    for (int i = 0; i < 5; i++) program.poll();
    const BytesView ended = program.recorder.ended();
    if (!ended.empty()) CHECK(ended.find("as it was destroyed") != BytesView::npos);
    CHECK(!ended.empty());
    Replay replay(taken(program.recorder));
    replay.run();
    CHECK(replay.differs_at() == 0);
}

TEST_CASE("a start that is none, or of another format, is said to be that") {
    Program program;
    const Bytes recording = taken(program.recorder);
    const auto with = [&recording](std::size_t place, char value) {
        Bytes changed = recording;
        changed[place] = value;
        coord::Writer(changed).patch_u32(4, coord::crc32c(BytesView(changed).substr(8)));
        return changed;
    };
    CHECK(Replay(recording).error() == Errc::ok);
    CHECK(Replay(with(13, 2)).error() == Errc::other_version);
    CHECK(Replay(with(9, 'x')).error() == Errc::corrupt);
    CHECK(Replay(with(8, 2)).error() == Errc::corrupt);
    CHECK(Replay("").error() == Errc::corrupt);
    CHECK(!Replay("").step());
    CHECK(Replay(recording, {Bytes(32, 'k')}).error() == Errc::bad_arguments);
}

TEST_CASE("a recording's bytes are known") {
    ReplicaOptions options;
    options.ensemble = 0x0102030405060708, options.entropy = 9;
    Program program(options);
    program.poll();
    program.poll();
    program.replica->receive(PeerId{2}, "hello");
    program.replica->forget(PeerId{3});
    (void)program.replica->hand_over(PeerId{4});
    program.replica->open_session({}, [&](auto opened) {
        Session session(*program.replica, *opened);
        session.create("/a", "b", nullptr);
        session.close([](auto) {});
    });
    program.poll();
    program.poll();
    program.poll();
    const Bytes recording = taken(program.recorder);
    // Red means that recordings of before are not read any more, or differ: another version of the
    // format (recording_version), unless what has changed is the protocol, its hashes or draws.
    CHECK(support::hex(recording) ==
          "00000143791d398201637265630100010001010100010203040506070800000000000000090100008084af"
          "5f8094ebdc0380e0ba84bf03904e8088debe018080c58bc6d1013200904e80808020e807008008ffff3f80"
          "808020808004808004808004800880800480808020808004808004808080028008802080018008808040"
          "408002000000808080200104000000010142140284ab7ecf690108f327047c1080897a8280f4f6905d09"
          "2a2e1a7d1080897a02093e13125a11020568656c6c6f1203130414018090dfc04a000000000000000000"
          "00000000000000001080897a020a0116000001000000000200022f6102620000010000ffffffffffffff"
          "ffff0100000000000000000600001600000100000000020700010000010000ffffffffffffffffff0100"
          "0000000000000006000609cc1a72531080897a0209a1661b691080897a020996b19375");
}

TEST_CASE("each call is a line") {
    Program program;
    const Sync zk = program.open();
    zk.session().create("/a\n", "", nullptr);
    zk.session().create("/a", "", [&](auto) { zk.session().get("/a", nullptr); });
    zk.session().add_auth("digest", "me:secret", nullptr);
    program.poll();
    program.poll();
    Replay replay(taken(program.recorder));
    Bytes all;
    while (replay.step()) all += replay.text();
    CHECK(all.find(" submit ") != Bytes::npos);
    CHECK(all.find("create /a?\n") != Bytes::npos);
    CHECK(all.find("   submit ") != Bytes::npos);  // within a poll
    CHECK(all.find("add_auth\n") != Bytes::npos);
    CHECK(all.find("secret") == Bytes::npos);
    CHECK(std::count(all.begin(), all.end(), '\n') ==
          static_cast<std::ptrdiff_t>(replay.calls()));
    const Bytes first = all.substr(0, all.find('\n'));
    CHECK(first == "       1          0.000000000 open_session     10.000 s");
}

}  // TEST_SUITE
