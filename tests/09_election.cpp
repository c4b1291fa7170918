// Chapter 9: the election as a pure state machine: several of them, and a list of messages between
// them that a test delays, drops and repeats.

#include <doctest/doctest.h>

#include <deque>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "coord.hpp"
#include "support.hpp"

namespace {

using coord::Bytes;
using coord::BytesView;
using coord::Election;
using coord::Message;
using coord::MessageType;
using coord::milliseconds;
using coord::Outbox;
using coord::PeerId;
using coord::Role;
using coord::Time;
using coord::Vote;
using coord::Voters;
using coord::Zxid;

constexpr std::uint64_t ensemble = 5;

Voters voters_of(std::uint32_t count) {
    std::vector<PeerId> ids;
    for (std::uint32_t i = 1; i <= count; i++) ids.emplace_back(i);
    return Voters(ids);
}

// Says whom the sender hears, by bits of voters 1 to 3 or of those.
Message& hears(Message& message, std::uint64_t heard, std::uint64_t reachable,
               const Voters& voters = voters_of(3), PeerId reader = PeerId{1}) {
    static std::deque<Bytes> payloads;  // a message has a view alone
    if (payloads.size() > 100) payloads.pop_front();
    Bytes& payload = payloads.emplace_back();
    const bool is_heard = !voters.contains(reader) || (heard & voters.bit(reader)) != 0;
    coord::write_voters(voters, {heard, reachable, is_heard}, reader, payload);
    message.payload = payload;
    return message;
}

struct Said : Message {
    Voters voters;
    coord::Hearing hearing;
    explicit Said(const Message& message) : Message(message) {
        REQUIRE(coord::read_voters(message.payload, message.to, voters, hearing));
        payload = {};
    }
};

struct One {
    Voters voters;
    Election election;
    Outbox out;
    Vote own;
    bool up = true;
    One(std::uint32_t id, std::uint32_t count, std::uint64_t nonce)
        : voters(voters_of(count)), election(PeerId{id}, voters, coord::Timing{}),
          out(PeerId{id}, ensemble, nonce), own{0, Zxid{}, PeerId{id}} {}
};

// Voters 1 to count, that hear one another unless a way is cut.
struct Field {
    std::vector<std::unique_ptr<One>> ones;
    std::set<std::pair<std::uint32_t, std::uint32_t>> cut;  // from, to
    Time now{1000000000};
    std::uint64_t sent = 0;

    explicit Field(std::uint32_t count) {
        for (std::uint32_t id = 1; id <= count; id++) {
            ones.push_back(std::make_unique<One>(id, count, 100 + id));
        }
    }
    One& operator[](std::uint32_t id) { return *ones[id - 1]; }
    void history(std::uint32_t id, std::uint32_t epoch, std::uint64_t zxid) {
        (*this)[id].own.current_epoch = epoch, (*this)[id].own.zxid = Zxid{zxid};
    }
    void start(std::uint32_t id) {
        Election& election = (*this)[id].election;
        election.start(now, (*this)[id].own, (*this)[id].own);
    }
    void start_all() {
        for (std::uint32_t id = 1; id <= ones.size(); id++) start(id);
    }
    void deaf(std::uint32_t id) {
        for (std::uint32_t other = 1; other <= ones.size(); other++) cut.emplace(other, id);
    }
    void mute(std::uint32_t id) {
        for (std::uint32_t other = 1; other <= ones.size(); other++) cut.emplace(id, other);
    }
    void deliver(std::uint32_t from) {
        (*this)[from].out.drain([&](PeerId to, BytesView bytes) {
            sent += 1;
            One& other = (*this)[to.value];
            if (cut.count({from, to.value}) > 0 || !other.up || !(*this)[from].up) return;
            Message message;
            REQUIRE(decode_message(bytes, message) == coord::Errc::ok);
            other.election.on_notification(now, message);
        });
    }
    void run(int steps = 200) {
        for (int step = 0; step < steps; step++) {
            for (const auto& one : ones) {
                if (one->up) one->election.poll(now, one->out);
            }
            for (std::uint32_t id = 1; id <= ones.size(); id++) deliver(id);
            now = now + milliseconds(5);
        }
    }
    std::uint32_t winner(std::uint32_t id) { return (*this)[id].election.winner().value; }
    void all_follow(std::uint32_t leader) {
        for (std::uint32_t id = 1; id <= ones.size(); id++) {
            CAPTURE(id);
            if ((*this)[id].up) CHECK(winner(id) == leader);
        }
    }
};

// One election under test, and notifications made by hand.
struct Alone {
    Voters voters = voters_of(3);
    Election election{PeerId{1}, voters, coord::Timing{}};
    Outbox out{PeerId{1}, ensemble, 9};
    Time now{0};
    Alone() { election.start(now, Vote{1, Zxid{10}, PeerId{1}}, Vote{1, Zxid{10}, PeerId{1}}); }
    // What 2 or 3 says: that it hears everybody, unless changed.
    static Message note(std::uint32_t from, std::uint64_t sequence, std::uint32_t candidate) {
        Message message;
        message.type = MessageType::notification;
        message.from = PeerId{from}, message.nonce = 50 + from, message.sequence = sequence;
        message.leader = PeerId{candidate};
        message.current_epoch = 1, message.zxid = Zxid{10};
        return hears(message, 7, 7);
    }
    std::vector<Said> poll() {
        std::vector<Said> said;
        election.poll(now, out);
        out.drain([&](PeerId, BytesView bytes) {
            Message message;
            REQUIRE(decode_message(bytes, message) == coord::Errc::ok);
            said.emplace_back(message);
        });
        return said;
    }
};

}  // namespace

TEST_SUITE("09 election") {

TEST_CASE("E2 votes are ordered by epoch, then zxid, then id") {
    const Vote base{2, Zxid{5}, PeerId{3}};
    CHECK(base < Vote{3, Zxid{1}, PeerId{1}});
    CHECK(base < Vote{2, Zxid{6}, PeerId{1}});
    CHECK(base < Vote{2, Zxid{5}, PeerId{4}});
    CHECK_FALSE(base < base);
    CHECK_FALSE(base < Vote{1, Zxid{9}, PeerId{9}});
    CHECK_FALSE(base < Vote{2, Zxid{4}, PeerId{9}});
    CHECK_FALSE(base < Vote{2, Zxid{5}, PeerId{2}});
}

TEST_CASE("roles have names") {
    CHECK(std::string(name(Role::looking)) == "LOOKING");
    CHECK(std::string(name(Role::following)) == "FOLLOWING");
    CHECK(std::string(name(Role::leading)) == "LEADING");
    CHECK(std::string(name(Role::failed)) == "FAILED");
    CHECK(std::string(name(Role::observing)) == "OBSERVING");
    CHECK(std::string(name(static_cast<Role>(77))) == "unknown");
}

TEST_CASE("one voter alone wins at once and says nothing") {
    Field field(1);
    field.start_all();
    field.run(1);
    CHECK(field.winner(1) == 1);
    CHECK(field.sent == 0);
}

TEST_CASE("equal histories: the highest id wins, with 2, 3, 5 and 7 voters") {
    for (const std::uint32_t count : {2u, 3u, 5u, 7u}) {
        CAPTURE(count);
        Field field(count);
        field.start_all();
        field.run();
        field.all_follow(count);
    }
}

TEST_CASE("E2 the best history wins, wherever it is") {
    for (const std::uint32_t count : {2u, 3u, 5u}) {
        for (std::uint32_t best = 1; best <= count; best++) {
            CAPTURE(count);
            CAPTURE(best);
            Field field(count);
            for (std::uint32_t id = 1; id <= count; id++) field.history(id, 1, 10);
            SUBCASE("by its zxid") { field.history(best, 1, 11); }
            SUBCASE("by its epoch, though its zxid is lower") { field.history(best, 2, 3); }
            field.start_all();
            field.run();
            field.all_follow(best);
        }
    }
}

TEST_CASE("no quorum, no winner: 1 of 2, 1 of 3, 2 of 5") {
    for (const auto& row : {std::pair{2u, 1u}, {3u, 1u}, {5u, 2u}, {4u, 2u}}) {
        const std::uint32_t count = row.first, up = row.second;
        CAPTURE(count);
        Field field(count);
        for (std::uint32_t id = up + 1; id <= count; id++) field[id].up = false;
        field.start_all();
        field.run();
        for (std::uint32_t id = 1; id <= up; id++) CHECK(field.winner(id) == 0);
    }
}

TEST_CASE("a quorum elects without the others, once it has waited for a better candidate") {
    Field field(5);
    field.history(5, 9, 9);
    field[5].up = field[4].up = false;
    field.history(2, 3, 3);
    field.start_all();
    field.run();
    for (const std::uint32_t id : {1u, 2u, 3u}) CHECK(field.winner(id) == 2);
}

TEST_CASE("E1 a deaf voter wins nothing, however good its history") {
    Field field(3);
    field.history(3, 9, 99);
    field.deaf(3);
    field.start_all();
    field.run();
    CHECK(field.winner(1) == 2);
    CHECK(field.winner(2) == 2);
    CHECK(field.winner(3) == 0);
}

TEST_CASE("E1 a mute voter wins nothing") {
    Field field(3);
    field.history(3, 9, 99);
    field.mute(3);
    field.start_all();
    field.run();
    CHECK(field.winner(1) == 2);
    CHECK(field.winner(2) == 2);
    CHECK(field.winner(3) != 3);
}

TEST_CASE("E1 a voter that reaches a quorum, but does not hear us, gets no vote of ours") {
    Alone a;
    Message deaf = Alone::note(3, 1, 3);
    deaf.zxid = Zxid{99}, hears(deaf, 0b110, 0b110);  // 2 and itself
    a.election.on_notification(a.now, deaf);
    a.poll();
    CHECK(a.election.candidate() == PeerId{1});
    deaf.sequence = 2, hears(deaf, 0b111, 0b110);
    a.election.on_notification(a.now, deaf);
    a.poll();
    CHECK(a.election.candidate() == PeerId{3});
}

TEST_CASE("a candidate that stands for somebody else does not win") {
    Alone a;
    Message other = Alone::note(3, 1, 2);  // the best, but it votes for 2
    other.zxid = Zxid{99};
    a.election.on_notification(a.now, other);
    a.election.on_notification(a.now, Alone::note(2, 1, 3));
    a.poll();
    a.now = a.now + coord::Timing{}.settle();
    a.poll();
    CHECK(a.election.candidate() == PeerId{3});
    CHECK(a.election.winner() == PeerId{});
    other.sequence = 2, other.leader = PeerId{3};
    a.election.on_notification(a.now, other);
    a.poll();
    CHECK(a.election.winner() == PeerId{3});
}

TEST_CASE("E1 a voter that reaches only a minority both ways is not voted for") {
    Field field(5);
    field.history(5, 9, 99);
    for (const std::uint32_t far : {2u, 3u, 4u}) field.cut.emplace(far, 5u);  // it hears 1 alone
    field.start_all();
    field.run();
    for (const std::uint32_t id : {1u, 2u, 3u, 4u}) CHECK(field.winner(id) == 4);
}

TEST_CASE("E1 a voter that can reach a quorum is enough, though one way is cut") {
    Field field(3);
    field.history(3, 9, 99);
    field.cut.emplace(3u, 1u), field.cut.emplace(1u, 3u);
    field.start_all();
    field.run();
    CHECK(field.winner(2) == 3);
    CHECK(field.winner(3) == 3);
}

TEST_CASE("messages lost at random leave nothing behind that disturbs the next election") {
    for (std::uint64_t seed = 1; seed <= 10; seed++) {
        CAPTURE(seed);
        coord::Rng rng(seed);
        Field field(5);
        field.history(2, 7, 7);
        field.start_all();
        for (int step = 0; step < 600; step++) {
            field.cut.clear();
            for (std::uint32_t from = 1; from <= 5; from++) {
                for (std::uint32_t to = 1; to <= 5; to++) {
                    if (rng.chance(600)) field.cut.emplace(from, to);
                }
            }
            field.run(1);
        }
        // Whoever has won by a hint out of date will not be established, and looks again.
        field.cut.clear();
        field.start_all();
        field.run();
        field.all_follow(2);
    }
}

TEST_CASE("a leader that hears us is followed, without an election") {
    Alone a;
    Message note = Alone::note(3, 1, 3);
    note.phase = static_cast<std::uint8_t>(Role::leading);
    a.election.on_notification(a.now, note);
    a.poll();
    CHECK(a.election.winner() == PeerId{3});
}

TEST_CASE("a leader that does not hear us is not followed; nor are followers voters for it") {
    Alone a;
    Message note = Alone::note(3, 1, 3);
    note.phase = static_cast<std::uint8_t>(Role::leading);
    hears(note, 6, 7);
    a.election.on_notification(a.now, note);
    Message follower = Alone::note(2, 1, 3);
    follower.phase = static_cast<std::uint8_t>(Role::following);
    a.election.on_notification(a.now, follower);
    a.poll();
    a.now = a.now + milliseconds(100);
    a.poll();
    CHECK(a.election.winner() == PeerId{});
}

TEST_CASE("a leader that has been silent for too long is not followed") {
    Alone a;
    Message note = Alone::note(3, 1, 3);
    note.phase = static_cast<std::uint8_t>(Role::leading);
    a.election.on_notification(a.now, note);
    a.now = a.now + coord::Timing{}.silence + milliseconds(1);
    a.poll();
    CHECK(a.election.winner() == PeerId{});
}

TEST_CASE("what one says: its vote, its history, whom it hears and who hears it") {
    Alone a;
    std::vector<Said> said = a.poll();
    REQUIRE(said.size() == 2);
    CHECK(said[0].to == PeerId{2});
    CHECK(said[1].to == PeerId{3});
    CHECK(said[0].type == MessageType::notification);
    CHECK(said[0].current_epoch == 1);
    CHECK(said[0].zxid == Zxid{10});
    CHECK(said[0].leader == PeerId{1});
    CHECK(said[0].phase == static_cast<std::uint8_t>(Role::looking));
    CHECK(said[0].hearing.heard == 1);
    CHECK(said[0].hearing.reachable == 1);
    Message note = Alone::note(2, 1, 2);
    hears(note, 2, 7);  // it does not hear us yet
    a.election.on_notification(a.now, note);
    const std::vector<Said> again = a.poll();
    REQUIRE(again.size() == 2);
    CHECK(again[0].hearing.heard == 3);
    CHECK(again[0].hearing.reachable == 1);
    CHECK(again[0].sequence > said[0].sequence);
}

TEST_CASE("D1 nothing new, nothing said until the retry is due") {
    Alone a;
    CHECK(a.poll().size() == 2);
    CHECK(a.poll().empty());
    a.now = a.now + coord::Timing{}.retry() - coord::nanoseconds(1);
    CHECK(a.poll().empty());
    CHECK(a.election.next_deadline() > a.now);
    a.now = a.now + coord::nanoseconds(1);
    CHECK(a.poll().size() == 2);
}

TEST_CASE("D1 repeated and overtaken notifications do nothing; the newest counts") {
    Alone a;
    a.election.on_notification(a.now, Alone::note(3, 5, 3));
    a.poll();
    CHECK(a.election.candidate() == PeerId{3});
    Message old = Alone::note(3, 4, 1);
    old.current_epoch = 0, old.zxid = Zxid{1};
    a.election.on_notification(a.now, old);
    a.poll();
    CHECK(a.election.candidate() == PeerId{3});
    a.election.on_notification(a.now, Alone::note(3, 5, 1));
    a.poll();
    CHECK(a.election.candidate() == PeerId{3});
    Message newer = old;
    newer.sequence = 6;
    a.election.on_notification(a.now, newer);
    a.poll();
    CHECK(a.election.candidate() == PeerId{1});
}

TEST_CASE("a voter that was restarted counts from the beginning again") {
    Alone a;
    a.election.on_notification(a.now, Alone::note(3, 1000, 3));
    a.poll();
    CHECK(a.election.candidate() == PeerId{3});
    Message reborn = Alone::note(3, 1, 3);
    reborn.nonce = 4711, reborn.current_epoch = 0, reborn.zxid = Zxid{};
    a.election.on_notification(a.now, reborn);
    a.poll();
    CHECK(a.election.candidate() == PeerId{1});
}

TEST_CASE("strangers and oneself are not listened to") {
    Alone a;
    a.election.on_notification(a.now, Alone::note(4, 1, 4));
    a.election.on_notification(a.now, Alone::note(1, 1, 3));
    const std::vector<Said> said = a.poll();
    REQUIRE_FALSE(said.empty());
    CHECK(said[0].hearing.heard == 1);
    CHECK(a.election.candidate() == PeerId{1});
}

TEST_CASE("settle: a quorum that is not everybody waits for a better candidate") {
    Alone a;
    a.election.on_notification(a.now, Alone::note(2, 1, 2));
    a.poll();
    CHECK(a.election.candidate() == PeerId{2});
    CHECK(a.election.winner() == PeerId{});
    CHECK(a.election.next_deadline() == a.now + coord::Timing{}.settle());
    SUBCASE("time passes") {
        a.now = a.now + coord::Timing{}.settle();
        a.poll();
        CHECK(a.election.winner() == PeerId{2});
    }
    SUBCASE("the better candidate comes") {
        a.now = a.now + coord::Timing{}.settle() / 2;
        a.election.on_notification(a.now, Alone::note(3, 1, 3));
        a.poll();
        CHECK(a.election.candidate() == PeerId{3});
        a.now = a.now + coord::Timing{}.settle() / 2;
        a.poll();
        CHECK(a.election.winner() == PeerId{});
        a.election.on_notification(a.now, Alone::note(2, 2, 3));
        a.poll();
        CHECK(a.election.winner() == PeerId{3});  // everybody agrees: no waiting
    }
}

TEST_CASE("nobody wins without its own vote") {
    Alone a;
    a.election.on_notification(a.now, Alone::note(2, 1, 1));
    a.election.on_notification(a.now, Alone::note(3, 1, 2));
    a.poll();
    CHECK(a.election.candidate() == PeerId{3});
    a.now = a.now + milliseconds(100);
    a.poll();
    CHECK(a.election.winner() == PeerId{});
}

TEST_CASE("a hint that a peer is gone takes back what it said") {
    Alone a;
    a.election.on_notification(a.now, Alone::note(3, 1, 3));
    a.poll();
    CHECK(a.election.candidate() == PeerId{3});
    a.election.forget(PeerId{3});
    a.poll();
    CHECK(a.election.candidate() == PeerId{1});
    a.election.forget(PeerId{99});
}

TEST_CASE("start forgets what was") {
    Alone a;
    a.election.on_notification(a.now, Alone::note(3, 1, 3));
    a.election.on_notification(a.now, Alone::note(2, 1, 3));
    a.poll();
    REQUIRE(a.election.winner() == PeerId{3});
    a.election.start(a.now, Vote{1, Zxid{11}, PeerId{1}}, Vote{1, Zxid{11}, PeerId{1}});
    CHECK(a.election.winner() == PeerId{});
    CHECK(a.election.candidate() == PeerId{1});
    CHECK(a.election.next_deadline() == a.now);
    const std::vector<Said> said = a.poll();
    REQUIRE(said.size() == 2);
    CHECK(said[0].zxid == Zxid{11});
    CHECK(said[0].hearing.heard == 1);
}

TEST_CASE("the answer to one that looks: who leads, and that we hear it") {
    Alone a;
    for (const Role role : {Role::leading, Role::following}) {
        a.election.answer(PeerId{3}, role, PeerId{2}, a.out);
        a.out.drain([&](PeerId to, BytesView bytes) {
            Message message;
            REQUIRE(decode_message(bytes, message) == coord::Errc::ok);
            CHECK(to == PeerId{3});
            CHECK(message.leader == PeerId{2});
            CHECK(message.phase == static_cast<std::uint8_t>(role));
            CHECK(Said(message).hearing.heard == 5);
            CHECK(Said(message).hearing.reachable == 5);
            CHECK(Said(message).hearing.is_reader_heard);
        });
    }
}

TEST_CASE("a voter that comes back finds the leader by its answer") {
    Field field(3);
    field.start_all();
    field[1].up = false;
    field.run();
    REQUIRE(field.winner(2) == 3);
    field[1].up = true;
    field.start(1);
    for (int i = 0; i < 10; i++) {
        field[1].election.poll(field.now, field[1].out);
        field.deliver(1);
        field[3].election.answer(PeerId{1}, Role::leading, PeerId{3}, field[3].out);
        field.deliver(3);
        field.now = field.now + milliseconds(5);
    }
    CHECK(field.winner(1) == 3);
}

// Who is no voter.
struct Outside {
    Voters voters = voters_of(3);
    Election election{PeerId{4}, voters, coord::Timing{}};
    Outbox out{PeerId{4}, ensemble, 9};
    Time now{0};
    Outside() { election.start(now, Vote{0, Zxid{}, PeerId{4}}, Vote{0, Zxid{}, PeerId{4}}); }
    std::vector<PeerId> poll() {
        std::vector<PeerId> asked;
        election.poll(now, out);
        out.drain([&](PeerId to, BytesView) { asked.push_back(to); });
        return asked;
    }
};

TEST_CASE("E3 who is no voter asks the voters, once a heartbeat") {
    Outside o;
    const std::vector<PeerId> all = {PeerId{1}, PeerId{2}, PeerId{3}};
    CHECK(o.poll() == all);
    for (std::uint32_t i = 1; i <= 3; i++) {
        o.election.on_notification(o.now, Alone::note(i, 1, 3));
        CHECK(o.poll().empty());  // whom it hears it tells nobody
    }
    o.now = o.now + coord::Timing{}.heartbeat - milliseconds(1);
    CHECK(o.poll().empty());
    CHECK(o.election.next_deadline() == o.now + milliseconds(1));
    o.now = o.now + milliseconds(1);
    CHECK(o.poll() == all);
}

TEST_CASE("E3 who is no voter follows whoever leads, and nobody whom others vote for or follow") {
    Outside o;
    for (int i = 0; i < 40; i++) {
        for (std::uint32_t id = 1; id <= 3; id++) {
            Message note = Alone::note(id, static_cast<std::uint64_t>(i + 1), 3);
            const bool follows = i >= 20 && id != 3;
            note.phase = static_cast<std::uint8_t>(follows ? Role::following : Role::looking);
            o.election.on_notification(o.now, note);
        }
        o.poll();
        CHECK(o.election.winner() == PeerId{});
        o.now = o.now + milliseconds(20);
    }
    Message note = Alone::note(3, 100, 3);
    note.phase = static_cast<std::uint8_t>(Role::leading);
    hears(note, 4, 4, voters_of(3), PeerId{4});  // there is no bit for us
    o.election.on_notification(o.now, note);
    o.now = o.now + coord::Timing{}.silence + milliseconds(1);
    o.poll();
    CHECK(o.election.winner() == PeerId{});  // what it said is old by now
    note.sequence += 1;
    o.election.on_notification(o.now, note);
    o.poll();
    CHECK(o.election.winner() == PeerId{3});
}

TEST_CASE("E3 voters neither hear nor elect who is no voter") {
    Field field(3);
    field.start_all();
    Outside o;
    Message note = Alone::note(4, 1, 4);
    note.current_epoch = 100, note.zxid = Zxid{100, 1};
    for (int i = 0; i < 100; i++) {
        for (std::uint32_t id = 1; id <= 3; id++) {
            note.sequence += 1;
            note.phase = static_cast<std::uint8_t>(i % 2 == 0 ? Role::leading : Role::looking);
            field[id].election.on_notification(field.now, note);
        }
        field.run(1);
    }
    field.all_follow(3);
}

// Voters 1 to 3, of whom 3 and 4 are to vote next; only 3 knows.
struct Lagging {
    Voters old = voters_of(3);
    Voters next{std::vector<PeerId>{PeerId{3}, PeerId{4}}};
    Election election{PeerId{4}, old, coord::Timing{}};
    Outbox out{PeerId{4}, ensemble, 9};
    Time now{0};
    Lagging() { election.start(now, Vote{0, Zxid{}, PeerId{4}}, Vote{0, Zxid{}, PeerId{4}}); }
    void poll() {
        election.poll(now, out);
        out.drain([](PeerId, BytesView) {});
    }
};

TEST_CASE("E3 a voter that does not know it yet elects, and is needed") {
    Lagging l;
    Message note = Alone::note(3, 1, 3);
    hears(note, 3, 3, l.next, PeerId{4});
    CHECK_FALSE(l.election.counts_us(PeerId{3}));
    l.election.on_notification(l.now, note);
    CHECK(l.election.counts_us(PeerId{3}));
    l.poll();
    CHECK(l.election.candidate() == PeerId{3});
    CHECK(l.election.winner() == PeerId{3});
    // The candidate, in its turn, hears of it, and does not win before.
    Election three(PeerId{3}, l.next, coord::Timing{});
    Outbox out(PeerId{3}, ensemble, 8);
    three.start(l.now, Vote{1, Zxid{10}, PeerId{3}}, Vote{1, Zxid{10}, PeerId{3}});
    three.poll(l.now, out);
    CHECK(three.winner() == PeerId{});
    Message vote = Alone::note(4, 1, 3);
    vote.zxid = Zxid{};
    hears(vote, 4, 4, l.old, PeerId{3});
    three.on_notification(l.now, vote);
    three.poll(l.now, out);
    CHECK(three.winner() == PeerId{3});
}

TEST_CASE("E3 a candidate needs a quorum of the voters that its own history has") {
    Alone a;
    const Voters joint(std::vector<Voters::Seat>{{PeerId{1}, 1, 0, true, false, 0},
                                                 {PeerId{2}, 1, 0, true, false, 0},
                                                 {PeerId{3}, 1, 0, true, true, 0},
                                                 {PeerId{4}, 1, 0, false, true, 0}});
    Message best = Alone::note(3, 1, 3);
    best.zxid = Zxid{99};
    hears(best, 7, 7, joint);  // it does not reach 4
    a.election.on_notification(a.now, best);
    a.election.on_notification(a.now, Alone::note(2, 1, 2));
    a.poll();
    CHECK(a.election.candidate() == PeerId{2});
    best.sequence = 2, hears(best, 15, 15, joint);
    a.election.on_notification(a.now, best);
    Message other = Alone::note(2, 2, 3);
    a.election.on_notification(a.now, other);
    a.poll();
    a.now = a.now + coord::Timing{}.settle();
    a.poll();
    CHECK(a.election.candidate() == PeerId{3});
    CHECK(a.election.winner() == PeerId{});  // 4 has not agreed
    Message four = Alone::note(4, 1, 3);
    hears(four, 15, 15, joint);
    a.election.on_notification(a.now, four);
    a.poll();
    CHECK(a.election.winner() == PeerId{3});
}

TEST_CASE("E4 a voter with the end of its own voting in its log leads once more") {
    Alone a;  // of 1 to 3
    Message leaving = Alone::note(4, 1, 4);
    leaving.zxid = Zxid{99};
    static Bytes payload;
    payload.clear();
    coord::write_voters(a.voters, {7, 7, true, false}, PeerId{1}, payload);
    leaving.payload = payload;
    a.election.on_notification(a.now, leaving);
    a.poll();
    CHECK(a.election.candidate() == PeerId{1});  // it is a stranger
    payload.clear();
    coord::write_voters(a.voters, {7, 7, true, true}, PeerId{1}, payload);
    leaving.payload = payload, leaving.sequence = 2;
    a.election.on_notification(a.now, leaving);
    a.election.on_notification(a.now, Alone::note(2, 1, 4));
    a.election.on_notification(a.now, Alone::note(3, 1, 4));
    a.poll();
    CHECK(a.election.winner() == PeerId{4});
    // And from its own side.
    Election four(PeerId{4}, a.voters, coord::Timing{});
    Outbox out(PeerId{4}, ensemble, 8);
    four.set_voters(a.now, a.voters, {}, true);
    four.start(a.now, Vote{1, Zxid{99}, PeerId{4}}, Vote{1, Zxid{99}, PeerId{4}});
    for (std::uint32_t id = 2; id <= 3; id++) {
        Message note = Alone::note(id, 1, 4);
        hears(note, 7, 7, a.voters, PeerId{4});
        four.on_notification(a.now, note);
    }
    four.poll(a.now, out);
    a.now = a.now + coord::Timing{}.settle();
    four.poll(a.now, out);
    CHECK(four.winner() == PeerId{4});
}

TEST_CASE("E5 a storage that does not count is not left alone by an old history") {
    const Voters alone(std::vector<PeerId>{PeerId{4}});
    Election election(PeerId{4}, alone, coord::Timing{});
    Outbox out(PeerId{4}, ensemble, 8);
    Time now{0};
    const auto polls = [&](std::vector<coord::Message>& said) {
        election.poll(now, out);
        out.drain([&](PeerId, BytesView bytes) {
            coord::Message message;
            REQUIRE(coord::decode_message(bytes, message) == coord::Errc::ok);
            said.push_back(message);
            said.back().payload = {};
        });
    };
    std::vector<coord::Message> said;
    SUBCASE("while there is anybody to ask it asks, and stands for nothing") {
        election.set_voters(now, alone, {PeerId{4}, PeerId{2}}, false, false);
        election.start(now, Vote{0, Zxid{}, PeerId{4}}, Vote{0, Zxid{}, PeerId{4}});
        for (int i = 0; i < 20; i++, now = now + coord::Timing{}.heartbeat) polls(said);
        CHECK(election.winner() == PeerId{});
        REQUIRE(said.size() == 20);
        CHECK(said.front().leader == PeerId{});
        // And follows whoever leads.
        Message note = Alone::note(2, 1, 2);
        note.phase = static_cast<std::uint8_t>(Role::leading);
        hears(note, 7, 7, voters_of(3), PeerId{4});
        election.on_notification(now, note);
        polls(said);
        CHECK(election.winner() == PeerId{2});
    }
    SUBCASE("one that counts wins at once") {
        election.set_voters(now, alone, {PeerId{4}, PeerId{2}}, false, true);
        election.start(now, Vote{0, Zxid{}, PeerId{4}}, Vote{0, Zxid{}, PeerId{4}});
        polls(said);
        CHECK(election.winner() == PeerId{4});
    }
    SUBCASE("where there is nobody to ask it wins, and is told why it cannot lead") {
        election.set_voters(now, alone, {PeerId{4}}, false, false);
        election.start(now, Vote{0, Zxid{}, PeerId{4}}, Vote{0, Zxid{}, PeerId{4}});
        polls(said);
        CHECK(election.winner() == PeerId{4});
    }
}

TEST_CASE("E5 who names no candidate is none") {
    Alone a;  // of 1 to 3
    Message note = Alone::note(2, 1, 0);
    hears(note, 2, 2, Voters(std::vector<PeerId>{PeerId{2}}), PeerId{1});
    note.zxid = Zxid{99};
    a.election.on_notification(a.now, note);
    a.poll();
    CHECK(a.election.candidate() == PeerId{1});
    note.sequence = 2, note.leader = PeerId{2};
    a.election.on_notification(a.now, note);
    a.poll();
    CHECK(a.election.candidate() == PeerId{2});  // but for that it would be one
}

static void gives_no_voice_to_less(bool votes) {
    // By its own history, which goes further than that of 2, 1 votes no more; or it does, and
    // needs 5, which it does not hear yet.
    std::vector<PeerId> known{PeerId{5}};
    if (votes) known.push_back(PeerId{1});
    const Voters others(known);
    Election election(PeerId{1}, others, coord::Timing{});
    Outbox out(PeerId{1}, ensemble, 9);
    Time now{0};
    const Vote history{1, Zxid{10}, PeerId{1}};
    election.start(now, votes ? history : Vote{0, Zxid{}, PeerId{1}}, history);
    const auto hear = [&](std::uint64_t sequence, std::uint32_t epoch, Zxid zxid) {
        Message note = Alone::note(2, sequence, 2);
        note.current_epoch = epoch, note.zxid = zxid;
        election.on_notification(now, note);
        Message more = Alone::note(3, sequence, 2);
        more.zxid = Zxid{};
        election.on_notification(now, more);
        election.poll(now, out);
        out.drain([](PeerId, BytesView) {});
    };
    SUBCASE("nothing: it has lost all it had") {
        hear(1, 0, Zxid{});
        now = now + coord::Timing{}.settle();
        hear(2, 0, Zxid{});
        CHECK(election.candidate() == PeerId{1});
        CHECK(election.winner() == PeerId{});
    }
    SUBCASE("an entry less") {
        hear(1, 1, Zxid{9});
        CHECK(election.candidate() == PeerId{1});
    }
    SUBCASE("as much") {
        hear(1, 1, Zxid{10});
        CHECK(election.candidate() == PeerId{2});
        now = now + coord::Timing{}.settle();
        hear(2, 1, Zxid{10});
        CHECK(election.winner() == PeerId{2});
    }
    SUBCASE("of a later epoch") {
        hear(1, 2, Zxid{9});
        CHECK(election.candidate() == PeerId{2});
    }
}

TEST_CASE("E6 who stands for nothing gives no voice to one that has less than it") {
    gives_no_voice_to_less(false);
}

TEST_CASE("E6 who stands itself, and is not heard yet, gives no voice to one that has less") {
    gives_no_voice_to_less(true);
}

TEST_CASE("who has returned is waited for, though a hint had said that it is gone") {
    for (const bool has_returned : {false, true}) {
        Alone a;
        a.election.forget(PeerId{3});
        if (has_returned) a.election.returned(PeerId{3});
        Message note = Alone::note(2, 1, 1);
        note.zxid = Zxid{9};
        a.election.on_notification(a.now, note);
        a.poll();
        CHECK((a.election.winner() == PeerId{1}) == !has_returned);
        a.now = a.now + coord::Timing{}.settle();
        a.poll();
        CHECK(a.election.winner() == PeerId{1});
    }
}

TEST_CASE("R6 who stands aside does not win by the voice of one that has nothing") {
    for (const bool stands_aside : {false, true}) {
        Alone a;
        a.election.start(a.now, Vote{0, Zxid{}, PeerId{1}}, Vote{1, Zxid{10}, PeerId{1}},
                         stands_aside);
        a.election.forget(PeerId{3});  // nobody to wait for
        Message note = Alone::note(2, 1, 1);
        note.current_epoch = 0, note.zxid = Zxid{};
        a.election.on_notification(a.now, note);
        const std::vector<Said> said = a.poll();
        REQUIRE(!said.empty());
        CHECK(said.front().leader == PeerId{stands_aside ? 0u : 1u});
        CHECK(a.election.winner() == PeerId{stands_aside ? 0u : 1u});
        note = Alone::note(3, 1, 3);
        note.current_epoch = 2;
        a.election.on_notification(a.now, note);
        a.poll();
        if (stands_aside) CHECK(a.election.candidate() == PeerId{3});
    }
}

TEST_CASE("E3 who follows somebody else is believed, unless that one is asked itself") {
    Outside o;
    Message note = Alone::note(2, 1, 9);
    note.phase = static_cast<std::uint8_t>(Role::following);
    hears(note, 7, 7, voters_of(3), PeerId{4});
    SUBCASE("of somebody unknown") {
        o.election.on_notification(o.now, note);
        o.poll();
        CHECK(o.election.winner() == PeerId{9});
    }
    SUBCASE("of one that is asked") {
        note.leader = PeerId{3};
        o.election.on_notification(o.now, note);
        o.poll();
        CHECK(o.election.winner() == PeerId{});
    }
    SUBCASE("of one that has led before") {
        o.election.on_notification(o.now, note);
        o.poll();
        REQUIRE(o.election.winner() == PeerId{9});
        o.election.set_voters(o.now, o.voters, {});
        o.election.start(o.now, Vote{0, Zxid{}, PeerId{4}}, Vote{0, Zxid{}, PeerId{4}});
        note.sequence = 2;
        o.election.on_notification(o.now, note);
        o.poll();
        CHECK(o.election.winner() == PeerId{});
    }
    SUBCASE("of nobody") {
        note.leader = PeerId{};
        o.election.on_notification(o.now, note);
        o.poll();
        CHECK(o.election.winner() == PeerId{});
    }
}

TEST_CASE("random notifications, hostile in every field, elect who speaks or is named") {
    coord::Rng rng(support::seed_or(9));
    for (int round = 0; round < 200; round++) {
        Alone a;
        std::set<PeerId> named;
        for (int i = 0; i < 100; i++) {
            const auto extreme = [&]() -> std::uint64_t {
                const std::uint64_t pick = rng.below(4);
                return pick == 0 ? 0 : pick == 1 ? UINT64_MAX : pick == 2 ? rng.below(8)
                                                                          : rng.next();
            };
            Message m = Alone::note(static_cast<std::uint32_t>(rng.below(5)), extreme(),
                                    static_cast<std::uint32_t>(extreme()));
            m.nonce = extreme(), m.zxid = Zxid{extreme()};
            m.current_epoch = static_cast<std::uint32_t>(extreme());
            m.phase = static_cast<std::uint8_t>(extreme());
            hears(m, extreme(), extreme());
            Bytes payload(m.payload);
            if (rng.chance(300)) payload[rng.below(payload.size())] = static_cast<char>(rng.next());
            if (rng.chance(100)) payload.resize(rng.below(payload.size()));
            m.payload = payload;
            if (m.phase == 1 || m.phase == 4) named.insert(m.leader);
            a.election.on_notification(a.now, m);
            a.poll();
            const PeerId winner = a.election.winner();
            CHECK((winner.value <= 4 || named.count(winner) > 0));  // 4 may say that it votes
            const PeerId candidate = a.election.candidate();
            CHECK((candidate != PeerId{} && candidate.value <= 4));
            a.now = a.now + milliseconds(static_cast<std::int64_t>(rng.below(60)));
        }
    }
}

}  // TEST_SUITE
