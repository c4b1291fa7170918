// Chapters 10 to 12: a leader that gives up its place on purpose. Voters 3, 2 and 1 are A, B and C;
// A leads first, since with equal histories the highest id wins. Every message is seen.

#include <doctest/doctest.h>

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "coord.hpp"
#include "paper/harness.hpp"
#include "support.hpp"

namespace {

using coord::Duration;
using coord::HandOver;
using coord::milliseconds;
using coord::Request;
using coord::seconds;
using coord::Simulation;
using coord::SimulationOptions;
using paper::anybody;
using paper::Bytes;
using paper::BytesView;
using paper::CallPtr;
using paper::Errc;
using paper::Message;
using paper::MessageType;
using paper::Packet;
using paper::PeerId;
using paper::Role;
using paper::SessionId;
using paper::Time;
using paper::World;
using paper::WorldOptions;
using paper::Zxid;

constexpr PeerId A{3}, B{2}, C{1};
const Duration silence = coord::Timing{}.silence;

struct Three : World {
    SessionId session;  // at A

    explicit Three(const WorldOptions& options = {}) : World(options) {
        start_all();
        REQUIRE(are_in_step());
        REQUIRE(leader() == A);
        session = open(A);
        REQUIRE(write(A, session, "/a"));
        REQUIRE(are_in_step());
    }
    bool are_in_step() {
        return run_until([this] { return are_equal(ids()); });
    }
    std::uint32_t epoch() { return (*this)[leader()].status().epoch; }
    PeerId successor(PeerId of = A) { return (*this)[of].status().successor; }
    std::uint64_t elections() {
        std::uint64_t all = 0;
        for (const PeerId id : ids()) all += (*this)[id].counters().elections;
        return all;
    }
    // Of that step, on their way.
    std::vector<Packet> steps(HandOver step) const {
        std::vector<Packet> found;
        for (const Packet& packet : packets) {
            const bool is_one = packet.type == MessageType::hand_over &&
                                packet.message().phase == static_cast<std::uint8_t>(step);
            if (is_one) found.push_back(packet);
        }
        return found;
    }
    std::size_t count(HandOver step) const { return steps(step).size(); }
    Errc begin(PeerId to = {}) {
        const Errc error = (*this)[A].hand_over(to);
        poll(A);
        return error;
    }
    // Takes the next message of it out of the network.
    Packet take() {
        hold(MessageType::hand_over, anybody, anybody);
        REQUIRE(run_until([&] { return packets_of_it() > 0; }, silence));
        no_rules();
        std::size_t place = 0;
        while (packets[place].type != MessageType::hand_over) place += 1;
        const Packet packet = packets[place];
        packets.erase(packets.begin() + static_cast<std::ptrdiff_t>(place));
        return packet;
    }
    std::size_t packets_of_it() const {
        return World::count(MessageType::hand_over, anybody, anybody);
    }
    // The first of that step; all before it are delivered.
    Packet take(HandOver step) {
        for (int i = 0; i < 20; i++) {
            const Packet packet = take();
            if (packet.message().phase == static_cast<std::uint8_t>(step)) return packet;
            deliver_copy(packet);
        }
        return {};
    }
    // Who has been asked, and has no space, says so; the rest of it is held.
    void decline() {
        const PeerId to = successor();
        REQUIRE(count(HandOver::stand) == 1);
        REQUIRE(deliver(MessageType::hand_over, A, to));
        REQUIRE(count(HandOver::declines) == 1);
        REQUIRE(deliver(MessageType::hand_over, to, A));
    }
    void say(PeerId from, PeerId to, HandOver step, std::uint32_t epoch, std::uint64_t sequence,
             PeerId whom, Zxid zxid) {
        Message message;
        message.type = MessageType::hand_over, message.from = from, message.to = to;
        message.ensemble = 7, message.nonce = 4711, message.epoch = epoch;
        message.sequence = sequence, message.leader = whom, message.zxid = zxid;
        message.phase = static_cast<std::uint8_t>(step);
        Packet packet{from, to, MessageType::hand_over, {}};
        coord::encode_message(message, packet.bytes);
        deliver_copy(packet);
    }
};

}  // namespace

TEST_SUITE("12 hand over") {

TEST_CASE("to each of the others, by name: it leads, of the next epoch, and nobody has looked") {
    for (const PeerId to : {B, C}) {
        CAPTURE(to.value);
        Three w;
        const std::uint32_t before = w.epoch();
        const std::uint64_t looked = w.elections();
        const std::uint64_t snapshots = w[to].counters().snapshots_taken;
        const CallPtr call = w.create(A, w.session, "/meanwhile");
        CHECK(w[A].hand_over(to) == Errc::ok);
        CHECK(w[A].hand_over(to) == Errc::ok);  // it is under way
        CHECK(w.successor() == to);
        const Time since = w.now();
        REQUIRE(w.run_until([&] { return w.leads(to); }, silence));
        CHECK(w.now() == since);  // it took messages, and no time
        CHECK(w.epoch() == before + 1);
        CHECK(w.successor() == PeerId{});
        CHECK(w[A].leader_counters().hand_overs == 1);
        CHECK(w[A].leader_counters().hand_overs_failed == 0);
        CHECK(w.elections() == looked + 3);  // each has left its role once
        CHECK(w.run_until([&] { return call->done; }));
        CHECK(call->error == Errc::ok);
        CHECK(w.write(A, w.session, "/after"));
        CHECK(w[A].status().leader == to);
        CHECK(w[to].counters().snapshots_taken == snapshots);
        CHECK(w.are_in_step());
        CHECK(w.verify() == "");
    }
}

TEST_CASE("who does not lead, and whom it cannot be: an error each, and nothing changes") {
    Three w;
    const std::uint32_t before = w.epoch();
    CHECK(w[B].hand_over() == Errc::not_leading);
    CHECK(w[B].hand_over(A) == Errc::not_leading);
    CHECK(w[A].hand_over(A) == Errc::bad_arguments);
    CHECK(w[A].hand_over(PeerId{4}) == Errc::bad_arguments);
    w.cut(A, B);
    w.run(silence * 2);  // B has looked; that it is silent is known
    CHECK(w[A].hand_over(B) == Errc::no_successor);
    CHECK(w.successor() == PeerId{});
    w.heal();
    REQUIRE(w.are_in_step());
    CHECK(w.epoch() == before);
    w.hold(MessageType::hand_over, anybody, anybody);
    CHECK(w[A].hand_over(B) == Errc::ok);
    CHECK(w[A].hand_over() == Errc::ok);
    CHECK(w[A].hand_over(C) == Errc::too_many);
    CHECK(w.successor() == B);
    w.run(silence + milliseconds(1));
    CHECK(w[A].hand_over(C) == Errc::ok);
    w.no_rules();
    CHECK(w.run_until([&] { return w.leads(C); }, silence));
    CHECK(w.verify() == "");
}

TEST_CASE("alone there is nobody; before it leads, and when it has failed, it does not lead") {
    coord::MemoryStorage disk;
    coord::Replica alone({}, disk);
    CHECK(alone.hand_over() == Errc::not_leading);
    alone.poll(Time{1000000});
    REQUIRE(alone.status().serving);
    CHECK(alone.hand_over() == Errc::no_successor);
    CHECK(alone.hand_over(PeerId{1}) == Errc::bad_arguments);
    CHECK(alone.hand_over(PeerId{2}) == Errc::bad_arguments);
    coord::ReplicaOptions bad;
    bad.voters.clear();
    coord::MemoryStorage other;
    coord::Replica failed(bad, other);
    CHECK(failed.hand_over() == Errc::replica_failed);
}

TEST_CASE("Z21 nothing is numbered meanwhile, and where nobody comes all of it is, soon") {
    Three w;
    const SessionId remote = w.open(B);
    REQUIRE(w.are_in_step());
    const std::uint32_t before = w.epoch();
    const Zxid last = w.last(A);
    w.hold(MessageType::hand_over, anybody, anybody);
    REQUIRE(w[A].hand_over(C) == Errc::ok);
    const Time since = w.now();
    const CallPtr own = w.create(A, w.session, "/own"), other = w.create(B, remote, "/other");
    const CallPtr third = w.create(A, w.session, "/third");
    w.run(silence - milliseconds(1));
    CHECK(w.last(A) == last);
    CHECK_FALSE(own->done);
    CHECK(w.successor() == C);
    CHECK(w.count(HandOver::stand) > 3);  // it is asked again and again
    CHECK(w[A].status().serving);
    w.lose(MessageType::hand_over, anybody, anybody);
    REQUIRE(w.run_until([&] { return own->done && other->done && third->done; }));
    CHECK(w.now() - since < silence + coord::Timing{}.heartbeat * 2);
    CHECK(own->error == Errc::ok);
    CHECK(other->error == Errc::ok);
    CHECK(w.leads(A));
    CHECK(w.epoch() == before);
    CHECK(w.successor() == PeerId{});
    CHECK(w[A].leader_counters().hand_overs == 0);
    CHECK(w[A].leader_counters().hand_overs_failed == 1);
    CHECK(w.verify() == "");
}

TEST_CASE("Z21 it is not polled all the time while requests wait for its end") {
    Three w;
    const SessionId remote = w.open(B);
    w.hold(MessageType::hand_over, anybody, anybody);
    REQUIRE(w[A].hand_over(C) == Errc::ok);
    const CallPtr own = w.create(A, w.session, "/own"), other = w.create(B, remote, "/other");
    const std::uint64_t polls = w[A].counters().polls;
    w.run(silence / 2);
    CHECK(w[A].counters().polls - polls < 40);
    w.no_rules();
    REQUIRE(w.run_until([&] { return own->done && other->done; }));
    CHECK(w.leads(C));
    CHECK(w.verify() == "");
}

TEST_CASE("Z21 it waits until that one has all of it, durably, and all is committed") {
    Three w;
    w.hold(MessageType::ack, B, A);
    w.hold(MessageType::ack, C, A);
    const CallPtr call = w.create(A, w.session, "/open");
    REQUIRE(w[A].hand_over(B) == Errc::ok);
    w.flow();
    CHECK(w.count(HandOver::stand) == 0);
    w.no_rules();
    w.hold(MessageType::ack, B, A);
    w.hold(MessageType::hand_over, anybody, anybody);
    w.flow();
    CHECK(call->done);  // A and C have it
    CHECK(w.count(HandOver::stand) == 0);
    w.no_rules();
    CHECK(w.run_until([&] { return w.leads(B); }, silence));
    CHECK(w.verify() == "");
}

TEST_CASE("Z21 that one has all of it, and the leader's own disk has not: it is not committed") {
    Three w;
    w.disk(A).hold_flushes();
    w.hold(MessageType::ack, C, A);
    const CallPtr call = w.create(A, w.session, "/open");
    REQUIRE(w.begin(B) == Errc::ok);
    w.hold(MessageType::hand_over, anybody, anybody);
    w.flow();
    REQUIRE(w.has(B, "/a"));
    CHECK(w.last(B) == w.last(A));
    CHECK(w.count(HandOver::stand) == 0);
    w.no_rules();
    w.disk(A).stop_holding();
    w.poll(A);
    CHECK(w.run_until([&] { return w.leads(B); }, silence));
    CHECK(call->error == Errc::ok);
    CHECK(w.verify() == "");
}

TEST_CASE("who is to come dies before: with a hint at once, else in time, the leader leads on") {
    for (const bool is_hinted : {false, true}) {
        Three w;
        w.hold(MessageType::hand_over, anybody, anybody);
        REQUIRE(w.begin(B) == Errc::ok);
        w.crash(B);
        w.no_rules();
        const CallPtr call = w.create(A, w.session, "/b");
        const Time since = w.now();
        if (is_hinted) w[A].forget(B);
        REQUIRE(w.run_until([&] { return call->done; }));
        CHECK(call->error == Errc::ok);
        CHECK((w.now() - since < milliseconds(10)) == is_hinted);
        CHECK(w.leads(A));
        CHECK(w[A].leader_counters().hand_overs_failed == 1);
        CHECK(w.verify() == "");
    }
}

TEST_CASE("of several it turns to the next where one is gone or declines; to nobody else by name") {
    for (const bool is_named : {false, true}) {
        Three w;
        w.hold(MessageType::hand_over, anybody, anybody);
        REQUIRE(w.begin(is_named ? C : PeerId{}) == Errc::ok);
        const PeerId first = w.successor(), second = first == B ? C : B;
        w.disk(first).set_full(true);
        w.decline();
        CHECK(w.successor() == (is_named ? PeerId{} : second));
        w.disk(first).set_full(false);
        w.no_rules();
        w.run(milliseconds(20));
        CHECK(w.leads(is_named ? A : second));
        CHECK(w[A].leader_counters().hand_overs_failed == (is_named ? 1 : 0));
        CHECK(w.verify() == "");
    }
}

TEST_CASE("R16 who has no space to lead with declines, and the next one is asked") {
    Three w;
    w.disk(B).set_full(true);
    REQUIRE(w.begin(B) == Errc::ok);
    w.flow();
    CHECK(w.successor() == PeerId{});
    CHECK(w.leads(A));
    CHECK(w[A].leader_counters().hand_overs_failed == 1);
    CHECK(w[B].status().role == Role::following);
    REQUIRE(w.begin() == Errc::ok);
    REQUIRE(w.run_until([&] { return w.leads(C); }, silence));
    w.disk(B).set_full(false);
    CHECK(w.write(A, w.session, "/b"));
    CHECK(w.verify() == "");
}

TEST_CASE("R16 that it declines is said again where that was lost: nobody waits for the end") {
    Three w;
    w.disk(B).set_full(true);
    REQUIRE(w.begin(B) == Errc::ok);
    w.take(HandOver::declines);
    CHECK(w.successor() == B);
    CHECK(w.run_until([&] { return w.successor() == PeerId{}; }, silence / 2));
    CHECK(w.leads(A));
    CHECK(w[A].leader_counters().hand_overs_failed == 1);
    CHECK(w[B].status().role == Role::following);
    w.disk(B).set_full(false);
    CHECK(w.write(A, w.session, "/b"));
    CHECK(w.verify() == "");
}

TEST_CASE("nobody is left who would: it leads on at once, and says why") {
    Three w;
    w.hold(MessageType::hand_over, anybody, anybody);
    REQUIRE(w.begin() == Errc::ok);
    w.disk(B).set_full(true), w.disk(C).set_full(true);
    for (int i = 0; i < 2; i++) w.decline();
    CHECK(w.successor() == PeerId{});
    CHECK(w.leads(A));
    CHECK(w[A].leader_counters().hand_overs_failed == 1);
    w.no_rules();
    w.disk(B).set_full(false), w.disk(C).set_full(false);
    CHECK(w.write(A, w.session, "/b"));
    CHECK(w.verify() == "");
}

TEST_CASE("R16 a word that comes late: what it names is not the end any more: nothing happens") {
    Three w;
    REQUIRE(w[A].hand_over(B) == Errc::ok);
    const Packet stand = w.take(HandOver::stand);
    w.lose_from_now(MessageType::hand_over, anybody, anybody);
    w.run(silence * 2);
    REQUIRE(w[A].leader_counters().hand_overs_failed == 1);
    w.no_rules();
    REQUIRE(w.write(A, w.session, "/b"));
    REQUIRE(w.are_in_step());
    const std::uint64_t looked = w.elections();
    const std::uint32_t before = w.epoch();
    w.deliver_copy(stand);
    w.run(seconds(2));
    CHECK(w.elections() == looked);
    CHECK(w.leads(A));
    CHECK(w.epoch() == before);
    CHECK(w.verify() == "");
}

TEST_CASE("R16 the same late, with nothing written since: it stands in vain, and comes back") {
    Three w;
    REQUIRE(w[A].hand_over(B) == Errc::ok);
    const Packet stand = w.take(HandOver::stand);
    w.lose_from_now(MessageType::hand_over, anybody, anybody);
    w.run(silence * 2);
    w.no_rules();
    const std::uint32_t before = w.epoch();
    w.deliver_copy(stand);  // A and C are a quorum
    CHECK(w[B].status().role == Role::leading);
    CHECK_FALSE(w[B].status().serving);
    w.run(silence * 2);
    CHECK(w.are_in_step());
    CHECK(w.leads(A));
    CHECK(w.epoch() == before);
    const std::uint64_t looked = w.elections();
    for (int i = 0; i < 5; i++) w.deliver_copy(stand);  // once for each asking
    w.run(seconds(1));
    CHECK(w.elections() == looked);
    w.deliver_copy(stand);
    CHECK(w.write(A, w.session, "/b"));
    CHECK(w.verify() == "");
}

TEST_CASE("R16 all that was said of it comes again, an epoch later and two: nothing happens") {
    Three w;
    std::vector<Packet> said;
    REQUIRE(w.begin(B) == Errc::ok);
    for (const HandOver step : {HandOver::stand, HandOver::stands, HandOver::follow}) {
        said.push_back(w.take(step));
        w.deliver_copy(said.back());
    }
    REQUIRE(w.run_until([&] { return w.leads(B); }, silence));
    REQUIRE(said.size() == 3);
    for (const PeerId to : {A, C}) {
        REQUIRE(w.are_in_step());
        const std::uint64_t looked = w.elections();
        const std::uint32_t before = w.epoch();
        for (const Packet& packet : said) w.deliver_copy(packet), w.flow();
        w.run(seconds(2));
        CHECK(w.elections() == looked);
        CHECK(w.epoch() == before);
        REQUIRE(w[w.leader()].hand_over(to) == Errc::ok);
        REQUIRE(w.run_until([&] { return w.leads(to); }, silence));
    }
    CHECK(w.verify() == "");
}

TEST_CASE("what a hostile or mistaken peer says of it costs nobody its place") {
    Three w;
    const std::uint32_t epoch = w.epoch();
    const std::uint64_t looked = w.elections();
    for (const std::uint32_t of : {0u, epoch - 1, epoch, epoch + 1, UINT32_MAX}) {
        for (int step = 0; step < 6; step++) {
            const auto what = static_cast<HandOver>(step);
            for (const PeerId from : {B, C}) {
                w.say(from, A, what, of, 1, from, w.last(A));
                w.say(from, A, what, of, 0, A, w.last(A));
            }
            w.say(B, C, what, of, 1, C, w.last(A));
            w.say(C, B, what, of, UINT64_MAX, B, w.last(A));
            const bool is_word = what == HandOver::stand || what == HandOver::follow;
            if (of != epoch && is_word) w.say(A, B, what, of, UINT64_MAX, B, w.last(A));
        }
    }
    // In the leader's name, and of its epoch; but not of that history, or for somebody else.
    w.say(A, B, HandOver::stand, epoch, 5, B, Zxid{epoch, 99});
    w.say(A, B, HandOver::stand, epoch, 6, C, w.last(A));
    w.flow();
    w.run(seconds(1));
    CHECK(w.elections() == looked);
    CHECK(w.leads(A));
    CHECK(w[A].leader_counters().hand_overs == 0);
    CHECK(w.write(A, w.session, "/b"));
    CHECK(w.verify() == "");
}

TEST_CASE("R16 who does not follow in step declines: it has looked since it was asked") {
    Three w;
    w.hold(MessageType::hand_over, anybody, anybody);
    REQUIRE(w.begin(B) == Errc::ok);
    w[B].forget(A);  // a wrong hint: it looks, and follows again
    w.no_rules();
    w.run(milliseconds(20));
    CHECK(w.write(A, w.session, "/b"));
    CHECK(w.are_in_step());
    CHECK(w.verify() == "");
}

TEST_CASE("an answer that is lost is given again, and so is what is asked") {
    for (const HandOver lost : {HandOver::stand, HandOver::stands}) {
        for (const int times : {1, 3}) {
            Three w;
            REQUIRE(w[A].hand_over(C) == Errc::ok);
            for (int i = 0; i < times; i++) w.take(lost);
            CHECK(w.run_until([&] { return w.leads(C); }, silence));
            CHECK(w[A].leader_counters().hand_overs == 1);
            CHECK(w.verify() == "");
        }
    }
}

TEST_CASE("who is not told whom to follow finds out by itself, and the others do not wait") {
    Three w;
    REQUIRE(w[A].hand_over(B) == Errc::ok);
    const Packet follow = w.take(HandOver::follow);
    CHECK(follow.to == C);
    REQUIRE(w.run_until([&] { return w.leads(B); }, milliseconds(10)));
    CHECK(w.write(A, w.session, "/b"));
    CHECK(w.are_in_step());
    CHECK(w.verify() == "");
}

TEST_CASE("every answer of it is lost, and the place is given up: discovery has the last word") {
    Three w;
    const std::uint32_t before = w.epoch();
    w.lose_from_now(MessageType::leader_info, anybody, anybody);
    REQUIRE(w[A].hand_over(B) == Errc::ok);
    w.run(silence);
    CHECK(w.leader() == PeerId{});
    w.no_rules();
    REQUIRE(w.run_until([&] { return w.leader() != PeerId{}; }, seconds(5)));
    CHECK(w.epoch() <= before + 2);
    CHECK(w.write(A, w.session, "/b"));
    CHECK(w.verify() == "");
}

// At each message of it one of the three dies, or that message is lost: no write is lost, none is
// done twice, and there is one leader again.
TEST_CASE("at each of its messages one replica dies, or the message is lost") {
    for (int place = 0; place < 40; place++) {
        for (const PeerId victim : {A, B, C, anybody}) {
            CAPTURE(place);
            CAPTURE(victim.value);
            Three w;
            const SessionId remote = w.open(C);
            const CallPtr own = w.create(A, w.session, "/own");
            const CallPtr other = w.create(C, remote, "/other");
            REQUIRE(w[A].hand_over(B) == Errc::ok);
            w.poll(A);
            for (int i = 0; i < place && !w.packets.empty(); i++) w.deliver_at(0);
            if (victim != anybody) w.crash(victim);
            else if (!w.packets.empty()) w.packets.erase(w.packets.begin());
            w.run(milliseconds(300));
            if (victim != A) CHECK(w.run_until([&] { return own->done; }, seconds(5)));
            if (victim != C) CHECK(w.run_until([&] { return other->done; }, seconds(5)));
            CHECK(w.verify() == "");
        }
    }
}

// A, which has handed over, hears nothing of B's reign: what it answered now would be of the past.
TEST_CASE("a leader that has handed over answers no sync, and begins no round") {
    Three w;
    const SessionId remote = w.open(C);
    REQUIRE(w.begin(B) == Errc::ok);
    w.deliver_copy(w.take(HandOver::stand));
    w.deliver_copy(w.take(HandOver::stands));
    CHECK(w[A].status().role == Role::following);
    CHECK(w[A].session_state(w.session) == coord::SessionState::suspended);
    w.lose_from_now(MessageType::new_leader, B, A);
    w.lose_from_now(MessageType::up_to_date, B, A);
    w.lose_from_now(MessageType::proposal, B, A);
    const CallPtr sync = w.ask(Request::Kind::sync, A, w.session, "/");
    REQUIRE(w.run_until([&] { return w.leads(B); }, milliseconds(400)));
    REQUIRE(w.write(C, remote, "/new"));
    w.run(seconds(2));
    CHECK_FALSE(sync->done);
    CHECK_FALSE(w.has(A, "/new"));
    w.no_rules();
    CHECK(w.run_until([&] { return sync->done; }));
    CHECK(w.has(A, "/new"));
    CHECK(w.verify() == "");
}

// It came to lead without an election, and C has heard an earlier life of it in the last one.
TEST_CASE("who leads by a hand-over and gives up is believed, in whichever life it does") {
    Three w;
    w.crash(B), w.start(B);
    REQUIRE(w.are_in_step());
    REQUIRE(w.begin(B) == Errc::ok);
    REQUIRE(w.run_until([&] { return w.leads(B); }, silence));
    REQUIRE(w.are_in_step());
    w.disk(B).hold_flushes();  // Z11: its disk alone stands still
    std::vector<CallPtr> calls;
    for (int i = 0; i < 100 && w[B].status().role == Role::leading; i++) {
        calls.push_back(w.create(A, w.session, "/b" + std::to_string(i)));
        w.run(milliseconds(50));
    }
    REQUIRE(w[B].status().role != Role::leading);
    CHECK(std::string(w[C].status().reason) == "the leader has given up");
    CHECK(std::string(w[A].status().reason) == "the leader has given up");
    CHECK(w.verify() == "");
}

// Nobody may see its ephemeral go before; and it goes, though three leaders have led meanwhile.
TEST_CASE("P10 a session's lease and its end over hand-overs: not before, and not never") {
    Three w;
    const SessionId mine = w.open(C, seconds(4));
    REQUIRE(w.run_until([&] { return w[C].certain_until(mine) > w.now() + seconds(3); }));
    REQUIRE(w.are_in_step());
    const Time certain = w[C].certain_until(mine);
    w.crash(C);
    for (const PeerId to : {B, A, B}) {
        w.run(milliseconds(1100));
        REQUIRE(w[w.leader()].hand_over(to) == Errc::ok);
        REQUIRE(w.run_until([&] { return w.leads(to); }, silence));
    }
    const auto is_there = [&] { return w[B].machine().find_session(mine) != nullptr; };
    const bool was_there = is_there();
    REQUIRE(w.run_until([&] { return !is_there(); }, seconds(20)));
    CHECK(was_there);
    CHECK(w.now() > certain);
    CHECK(w.now() < certain + seconds(6));
    CHECK(w.verify() == "");
}

TEST_CASE("a lease that was there before still holds after, at the one that has handed over") {
    Three w;
    const SessionId mine = w.open(A, seconds(4));
    REQUIRE(w.run_until([&] { return w[A].certain_until(mine) > w.now() + seconds(3); }));
    for (int i = 0; i < 20; i++) {
        const PeerId to = w.leader() == A ? B : A;
        const Time before = w[A].certain_until(mine);
        REQUIRE(w[w.leader()].hand_over(to) == Errc::ok);
        REQUIRE(w.run_until([&] { return w.leads(to); }, silence));
        CHECK(w[A].certain_until(mine) >= before);
        w.run(milliseconds(700));
        CHECK(w[A].certain_until(mine) > w.now() + seconds(3));
    }
    CHECK(w[B].machine().find_session(mine) != nullptr);
    CHECK(w.verify() == "");
}

// Sets of one node from three sessions, while the place goes round: each is done once.
TEST_CASE("round and round under writes: each is executed once, in its session's order") {
    Three w;
    std::vector<SessionId> sessions{w.session, w.open(B), w.open(C)};
    const std::vector<PeerId> places{A, B, C};
    const std::uint32_t before = w.epoch();
    std::vector<CallPtr> calls;
    for (int round = 0; round < 30; round++) {
        for (std::size_t i = 0; i < 3; i++) {
            for (int k = 0; k < 5; k++) {
                calls.push_back(w.ask(Request::Kind::create, places[i], sessions[i], "/n-", "x",
                                      coord::CreateMode::persistent_sequential));
            }
            w.poll(places[i]);
        }
        const PeerId leads = w.leader();
        REQUIRE(leads != PeerId{});
        REQUIRE(w[leads].hand_over() == Errc::ok);
        REQUIRE(w.run_until([&] { return w.leader() != leads && w.leader() != PeerId{}; },
                            silence));
    }
    REQUIRE(w.run_until([&] {
        for (const CallPtr& call : calls) {
            if (!call->done) return false;
        }
        return true;
    }));
    std::set<Bytes> paths;
    for (const CallPtr& call : calls) {
        CHECK(call->error == Errc::ok);
        paths.insert(call->path);
    }
    CHECK(paths.size() == calls.size());
    CHECK(w[A].tree().find("/")->stat.num_children == static_cast<std::int32_t>(calls.size()) + 2);
    CHECK(w.epoch() == before + 30);
    CHECK(w.verify() == "");
}

TEST_CASE("five voters, and messages lost at random: it ends in time, and nothing is lost") {
    for (std::uint64_t seed = 1; seed <= 20; seed++) {
        CAPTURE(seed);
        SimulationOptions options;
        options.voters = 5, options.observers = 1, options.seed = support::seed_or(900) + seed;
        options.network.loss_permille = 100;
        options.network.repeat_permille = 50, options.network.delay_permille = 50;
        Simulation sim(options);
        REQUIRE(sim.run_until([&] { return sim.leader() != PeerId{}; }, seconds(20)));
        sim.run_for(seconds(3));
        const auto opened = coord::Sync::open(sim.replica(6u), {seconds(60)}, sim.pump());
        REQUIRE(opened);
        const coord::Sync zk(*opened, sim.pump());
        for (int i = 0; i < 8; i++) {
            const PeerId leads = sim.leader();
            if (leads == PeerId{}) continue;
            const Errc begun = sim.replica(leads).hand_over();
            CHECK((begun == Errc::ok || begun == Errc::no_successor));
            sim.run_for(silence + milliseconds(1));
            CHECK(sim.replica(leads).status().successor == PeerId{});
            CHECK(zk.create("/n-", "x", coord::CreateMode::persistent_sequential));
        }
        sim.set_network({});
        sim.run_for(seconds(3));
        CHECK(sim.replica(6u).tree().find("/")->stat.num_children == 9);
    }
}

TEST_CASE("its lines in the log, and what a replica says of it") {
    struct Heard final : coord::ReplicaObserver {
        std::vector<std::string> lines;
        void on_log(PeerId, const coord::LogLine& line) override {
            const bool is_one = line.code == coord::LogCode::hands_over ||
                                line.code == coord::LogCode::hand_over_failed;
            if (is_one) lines.emplace_back(line.text);
        }
    } heard;
    Simulation sim;
    sim.set_observer(&heard);
    REQUIRE(sim.run_until([&] { return sim.leader() != PeerId{}; }, seconds(20)));
    sim.run_for(seconds(1));
    const PeerId first = sim.leader(), second{first.value % 3 + 1};
    const std::string to = std::to_string(second.value);
    sim.cut(first, second);
    REQUIRE(sim.replica(first).hand_over(second) == Errc::ok);
    sim.run_for(milliseconds(50));
    CHECK(sim.replica(first).describe().find("; hands over to " + to) != Bytes::npos);
    CHECK(sim.replica(first).state_json().find("\"successor\":" + to) != Bytes::npos);
    sim.run_for(silence);
    CHECK(sim.replica(first).describe().find("; hands over to") == Bytes::npos);
    sim.heal();
    sim.run_for(seconds(1));
    REQUIRE(sim.leader() == first);
    REQUIRE(sim.replica(first).hand_over(second) == Errc::ok);
    REQUIRE(sim.run_until([&] { return sim.leader() == second; }, silence));
    CHECK(std::string(sim.replica(first).status().reason) == "it has handed over");
    CHECK(heard.lines == std::vector<std::string>{
        "hands over to " + to, "has not handed over, and leads on: it did not stand in time",
        "hands over to " + to});
    std::uint64_t done = 0, failed = 0;
    sim.replica(first).visit_metrics([&](const coord::Metric& metric) {
        if (std::string(metric.name) == "coord_hand_overs") done = metric.value;
        if (std::string(metric.name) == "coord_hand_overs_failed") failed = metric.value;
    });
    CHECK(done == 1);
    CHECK(failed == 1);
}

// Each replica is stopped and started again, the leader after it has handed over; an observer's
// session writes all the time.
TEST_CASE("a rolling upgrade: no write fails, none waits for an election") {
    SimulationOptions options;
    options.observers = 1, options.seed = support::seed_or(77);
    options.disk.flush_min = milliseconds(1), options.disk.flush_max = milliseconds(3);
    Simulation sim(options);
    REQUIRE(sim.run_until([&] { return sim.leader() != PeerId{}; }, seconds(20)));
    sim.run_for(seconds(3));
    auto opened = coord::Sync::open(sim.replica(4u), {seconds(60)}, sim.pump());
    REQUIRE(opened);
    coord::Session session = *opened;
    Duration longest;
    int asked = 0, done = 0;
    const auto write = [&] {
        asked += 1;
        session.create("/n-", "x", coord::CreateMode::persistent_sequential,
                       [&, since = sim.now()](coord::Result<coord::Created> created) {
            CHECK(created);
            done += created ? 1 : 0;
            longest = (std::max)(longest, sim.now() - since);
        });
    };
    const auto write_until = [&](const std::function<bool()>& condition) {
        for (int i = 0; i < 1000 && !condition(); i++) write(), sim.run_for(milliseconds(5));
        return condition();
    };
    for (std::uint32_t id = 1; id <= 3; id++) {
        if (sim.leader() == PeerId{id}) CHECK(sim.replica(id).hand_over() == Errc::ok);
        REQUIRE(write_until([&] { return sim.replica(id).status().successor == PeerId{}; }));
        CHECK(sim.leader() != PeerId{id});
        sim.crash(id);
        for (int i = 0; i < 50; i++) write(), sim.run_for(milliseconds(5));
        sim.restart(id);
        REQUIRE(write_until([&] {
            const coord::ReplicaStatus all = sim.replica(id).status();
            return all.serving && all.admitted;
        }));
        for (int i = 0; i < 200; i++) write(), sim.run_for(milliseconds(5));
    }
    sim.run_for(seconds(2));
    CHECK(done == asked);
    CHECK(longest < silence / 4);
    for (std::uint32_t id = 1; id <= 4; id++) {
        CHECK(sim.replica(id).tree().find("/")->stat.num_children == asked + 1);
    }
}

}  // TEST_SUITE
