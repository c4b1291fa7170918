// Chapter 11: a learner driven message by message. It is voter 1 and follows 2, whose words are
// made by hand.

#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <string>
#include <vector>

#include "coord.hpp"
#include "support.hpp"

namespace {

using coord::Bytes;
using coord::BytesView;
using coord::Errc;
using coord::Learner;
using coord::LogPosition;
using coord::Message;
using coord::MessageType;
using coord::milliseconds;
using coord::PeerId;
using coord::Time;
using coord::Txn;
using coord::Zxid;
using Phase = coord::Learner::Phase;

using support::entry;

struct Said {
    Message message;
    Bytes payload;
};

struct Rig {
    coord::MemoryStorage disk;
    coord::Log log{disk};
    coord::Timing timing;
    Learner learner{PeerId{1}, timing, log, 100};
    coord::Outbox out{PeerId{1}, 7, 11};
    Time now{1000000000};
    std::deque<Said> said;

    explicit Rig(std::uint64_t entries = 0) {
        REQUIRE(log.open() == Errc::ok);
        if (entries > 0) {
            REQUIRE(log.accept_epoch(1, PeerId{3}) == Errc::ok);
            REQUIRE(log.set_current_epoch(1) == Errc::ok);
        }
        LogPosition last;
        for (std::uint64_t i = 1; i <= entries; i++) {
            Txn txn;
            const Bytes record = entry(last, Zxid{1, i});
            REQUIRE(coord::decode_entry(record, txn) == Errc::ok);
            REQUIRE(log.append(record, txn) == Errc::ok);
        }
        flush();
        learner.start(now, PeerId{2});
    }
    void flush() {
        REQUIRE(log.flush() == Errc::ok);
        REQUIRE(log.refresh_durable() == Errc::ok);
    }
    void collect() {
        out.drain([&](PeerId to, BytesView bytes) {
            Said one;
            REQUIRE(coord::decode_message(bytes, one.message) == Errc::ok);
            one.payload = Bytes(one.message.payload);
            CHECK(to == PeerId{2});
            said.push_back(one);
        });
    }
    void step(coord::Duration passed = {}) {
        now = now + passed;
        log.set_time(now);
        learner.send(now, out);
        flush();
        learner.acknowledge(now, out);
        collect();
        CHECK(learner.error() == Errc::ok);
        log.audit();
    }
    std::vector<Message> take(MessageType type) {
        std::vector<Message> found;
        for (const Said& one : said) {
            if (one.message.type == type) found.push_back(one.message);
        }
        said.clear();
        return found;
    }
    Message make(MessageType type, std::uint32_t epoch = 5) {
        Message message;
        message.type = type, message.from = PeerId{2}, message.nonce = 22;
        message.epoch = epoch, message.attempt = attempt;
        return message;
    }
    bool tell(const Message& message) {
        const bool taken = learner.receive(now, message, out);
        collect();
        return taken;
    }
    bool tell(MessageType type, Zxid zxid, std::uint32_t epoch = 5) {
        Message message = make(type, epoch);
        message.zxid = message.commit = zxid;
        return tell(message);
    }
    std::uint64_t attempt = 0;    // the learner's, as its last message said

    void to_promise(std::uint32_t epoch = 5) {
        step();
        const std::vector<Message> infos = take(MessageType::follower_info);
        REQUIRE(infos.size() == 1);
        attempt = infos[0].attempt;
        tell(make(MessageType::leader_info, epoch));
        REQUIRE(learner.phase() == Phase::promise);
        step();
        const std::vector<Message> acks = take(MessageType::ack_epoch);
        REQUIRE(acks.size() == 1);
        attempt = acks[0].attempt;
    }
    void to_receiving() {
        to_promise();
        tell(MessageType::diff, log.last().zxid);
        REQUIRE(learner.phase() == Phase::receiving);
    }
    void to_following() {
        to_receiving();
        tell(MessageType::new_leader, log.last().zxid);
        step();
        tell(MessageType::up_to_date, log.last().zxid);
        REQUIRE(learner.is_serving());
        step();
        said.clear();
    }
    void propose(const Bytes& records, Zxid follows, Zxid commit = {}) {
        Message message = make(MessageType::proposal);
        message.zxid = follows, message.commit = commit, message.payload = records;
        tell(message);
    }
};

}  // namespace

TEST_SUITE("11 learner") {

TEST_CASE("discovery: it says what it has promised, and repeats it until it is answered") {
    Rig rig(3);
    CHECK(rig.learner.phase() == Phase::discovery);
    CHECK(rig.learner.leader() == PeerId{2});
    rig.step();
    std::vector<Message> infos = rig.take(MessageType::follower_info);
    REQUIRE(infos.size() == 1);
    CHECK(infos[0].accepted_epoch == 1);
    CHECK(infos[0].leader == PeerId{3});
    CHECK(infos[0].epoch == 0);
    rig.step(milliseconds(1));
    CHECK(rig.take(MessageType::follower_info).empty());
    CHECK(rig.learner.next_deadline() > rig.now);
    rig.step(rig.timing.retry());
    CHECK(rig.take(MessageType::follower_info).size() == 1);
}

TEST_CASE("F1 the promise is recorded, for this leader, and said when it is durable") {
    Rig rig(3);
    rig.step();
    rig.attempt = rig.take(MessageType::follower_info)[0].attempt;
    rig.disk.hold_flushes();
    rig.tell(rig.make(MessageType::leader_info));
    CHECK(rig.log.epochs().accepted == 5);
    CHECK(rig.log.epochs().accepted_from == PeerId{2});
    for (int i = 0; i < 5; i++) rig.step(rig.timing.retry());
    CHECK(rig.take(MessageType::ack_epoch).empty());
    rig.disk.release();
    rig.step();
    const std::vector<Message> acks = rig.take(MessageType::ack_epoch);
    REQUIRE(acks.size() == 1);
    CHECK(acks[0].epoch == 5);
    CHECK(acks[0].zxid == Zxid{1, 3});
    CHECK(acks[0].crc == rig.log.last().crc);
    CHECK(acks[0].current_epoch == 1);
    CHECK(acks[0].attempt > rig.attempt);
}

TEST_CASE("F1 no promise of an epoch below, nor of the same to another; the same again to one") {
    Rig rig;
    REQUIRE(rig.log.accept_epoch(5, PeerId{3}) == Errc::ok);
    rig.step();
    rig.attempt = rig.take(MessageType::follower_info)[0].attempt;
    SUBCASE("below") {
        rig.tell(rig.make(MessageType::leader_info, 4));
        CHECK(std::string(rig.learner.departure()) == "it has promised a later epoch");
    }
    SUBCASE("the same, promised to 3") {
        rig.tell(rig.make(MessageType::leader_info, 5));
        CHECK(std::string(rig.learner.departure()) ==
              "it has promised this epoch to somebody else");
    }
    SUBCASE("a later one") {
        rig.tell(rig.make(MessageType::leader_info, 6));
        CHECK(rig.learner.departure() == nullptr);
        rig.learner.stop();
        rig.learner.start(rig.now, PeerId{2});
        rig.step();
        rig.attempt = rig.take(MessageType::follower_info)[0].attempt;
        rig.tell(rig.make(MessageType::leader_info, 6));
        CHECK(rig.learner.departure() == nullptr);
        CHECK(rig.learner.phase() == Phase::promise);
        CHECK(rig.log.epochs().accepted == 6);
        return;
    }
    CHECK(rig.log.epochs().accepted == 5);
    CHECK(rig.log.epochs().accepted_from == PeerId{3});
    rig.step();
    CHECK(rig.take(MessageType::ack_epoch).empty());
}

TEST_CASE("F7 who observes follows also where it has promised more, and promises nothing then") {
    for (const std::uint32_t accepted : {5u, 9u}) {
        CAPTURE(accepted);
        Rig rig(3);
        REQUIRE(rig.log.accept_epoch(accepted, PeerId{3}) == Errc::ok);
        rig.learner.stop();
        rig.learner.start(rig.now, PeerId{2}, {}, true);
        rig.to_following();
        CHECK(rig.learner.departure() == nullptr);
        CHECK(rig.log.epochs().accepted == accepted);
        CHECK(rig.log.epochs().accepted_from == PeerId{3});
        CHECK(rig.log.epochs().current == 5);
        Message ping = rig.make(MessageType::ping);
        ping.sequence = 3;
        CHECK(rig.tell(ping));
        CHECK(rig.learner.pong_due());
        // As a voter it would have to find another one.
        rig.learner.stop();
        rig.learner.start(rig.now, PeerId{2});
        rig.step();
        rig.attempt = rig.take(MessageType::follower_info)[0].attempt;
        rig.tell(rig.make(MessageType::leader_info, 5));
        CHECK(rig.learner.departure() != nullptr);
    }
}

TEST_CASE("F7 who observes promises what is new, as others do; and goes back to no epoch before") {
    Rig rig(3);
    rig.learner.stop();
    rig.learner.start(rig.now, PeerId{2}, {}, true);
    rig.to_following();
    CHECK(rig.log.epochs().accepted == 5);
    CHECK(rig.log.epochs().accepted_from == PeerId{2});
    CHECK(rig.log.epochs().current == 5);
    rig.learner.stop();
    rig.learner.start(rig.now, PeerId{2}, {}, true);
    rig.step();
    rig.attempt = rig.take(MessageType::follower_info)[0].attempt;
    rig.tell(rig.make(MessageType::leader_info, 4));
    rig.step();
    CHECK(rig.learner.phase() == Phase::discovery);
    CHECK(rig.take(MessageType::ack_epoch).empty());
    rig.tell(MessageType::trunc, Zxid{1, 1}, 4);
    CHECK(rig.log.last().zxid == Zxid{1, 3});
    CHECK(rig.log.epochs().current == 5);
    rig.step(rig.timing.silence + milliseconds(1));  // it is not waited for
    CHECK(rig.learner.departure() != nullptr);
}

TEST_CASE("F8 it says as what it acknowledges, and votes for whom it has promised the epoch") {
    for (const bool has_promised_away : {false, true}) {
        CAPTURE(has_promised_away);
        Rig rig(3);
        if (has_promised_away) REQUIRE(rig.log.accept_epoch(9, PeerId{3}) == Errc::ok);
        rig.learner.stop();
        rig.learner.start(rig.now, PeerId{2}, {}, true);
        CHECK_FALSE(rig.learner.vote());  // it does not know the epoch yet
        rig.to_following();
        CHECK(rig.learner.observes());
        rig.said.clear();
        CHECK(rig.learner.vote() == !has_promised_away);
        CHECK(rig.learner.observes() == has_promised_away);
        rig.step();
        const auto acks = rig.take(MessageType::ack);
        CHECK(acks.size() == (has_promised_away ? 0 : 1));
        if (!acks.empty()) CHECK(acks[0].phase == 2);  // it was 6
    }
}

TEST_CASE("F1 a leader_info of an old attempt, of no epoch and of an epoch beyond all is ignored") {
    Rig rig;
    rig.step();
    rig.attempt = rig.take(MessageType::follower_info)[0].attempt;
    Message old = rig.make(MessageType::leader_info);
    old.attempt -= 1;
    rig.tell(old);
    rig.tell(rig.make(MessageType::leader_info, 0));
    rig.tell(rig.make(MessageType::leader_info, Zxid::epoch_max + 1));
    rig.tell(rig.make(MessageType::leader_info, UINT32_MAX));
    CHECK(rig.learner.phase() == Phase::discovery);
    CHECK(rig.log.epochs().accepted == 0);
}

TEST_CASE("nobody but the leader is listened to, and it only in its epoch") {
    Rig rig(3);
    rig.to_promise();
    Message message = rig.make(MessageType::diff);
    message.zxid = Zxid{1, 3};
    message.from = PeerId{3};
    CHECK_FALSE(rig.tell(message));
    message.from = PeerId{2}, message.epoch = 4;
    CHECK_FALSE(rig.tell(message));
    CHECK(rig.learner.phase() == Phase::promise);
    CHECK(rig.learner.departure() == nullptr);
    message.epoch = 6;
    CHECK_FALSE(rig.tell(message));
    CHECK(std::string(rig.learner.departure()) == "the leader has moved to a later epoch");
    rig.learner.stop();
    CHECK_FALSE(rig.tell(rig.make(MessageType::diff)));
    CHECK(rig.learner.next_deadline() == coord::never);
}

TEST_CASE("diff: what is there stays, and proposals follow") {
    Rig rig(3);
    rig.to_receiving();
    CHECK(rig.log.size() == 3);
    rig.step();
    const std::vector<Message> acks = rig.take(MessageType::ack);
    REQUIRE(acks.size() == 1);
    CHECK(acks[0].zxid == Zxid{1, 3});
    CHECK(acks[0].commit == Zxid{1, 3});
    CHECK(acks[0].phase == 0);
    CHECK(acks[0].offset == 0);
}

TEST_CASE("trunc: what comes after is cut; to where nothing is, it reports a point before") {
    Rig rig(5);
    rig.to_promise();
    SUBCASE("to an entry") {
        rig.tell(MessageType::trunc, Zxid{1, 2});
        CHECK(rig.log.last().zxid == Zxid{1, 2});
        CHECK(rig.learner.phase() == Phase::receiving);
    }
    SUBCASE("to nothing at all") {
        rig.tell(MessageType::trunc, Zxid{});
        CHECK(rig.log.size() == 0);
        CHECK(rig.learner.phase() == Phase::receiving);
    }
    SUBCASE("between two entries") {
        rig.said.clear();
        Rig other;
        LogPosition last;
        Bytes records = entry(last, Zxid{1, 2});
        records += entry(last, Zxid{1, 6});
        other.to_receiving();
        other.propose(records, Zxid{});
        other.step();
        other.learner.stop();
        other.learner.start(other.now, PeerId{2});
        other.to_promise();
        other.tell(MessageType::trunc, Zxid{1, 4});
        CHECK(other.log.last().zxid == Zxid{1, 6});  // nothing is cut yet
        CHECK(other.learner.phase() == Phase::promise);
        other.step();
        const std::vector<Message> acks = other.take(MessageType::ack_epoch);
        REQUIRE(acks.size() == 1);
        CHECK(acks[0].zxid == Zxid{1, 2});
        CHECK(acks[0].attempt > other.attempt);
    }
}

TEST_CASE("F2 a trunc, a diff or a snap of an attempt given up does nothing") {
    for (const MessageType type : {MessageType::trunc, MessageType::diff, MessageType::snap}) {
        for (const int offset : {-1, 1}) {
            Rig rig(5);
            rig.to_promise();
            Message old = rig.make(type);
            old.zxid = Zxid{1, 2}, old.total = 10;
            old.attempt += static_cast<std::uint64_t>(offset);
            rig.tell(old);
            CHECK(rig.log.last().zxid == Zxid{1, 5});
            CHECK(rig.learner.phase() == Phase::promise);
        }
    }
}

TEST_CASE("F2 once in step, the same trunc again cuts nothing") {
    Rig rig(5);
    rig.to_promise();
    rig.tell(MessageType::trunc, Zxid{1, 2});
    LogPosition last = rig.log.last();
    rig.propose(entry(last, Zxid{1, 3}, "another"), Zxid{1, 2});
    CHECK(rig.log.last().zxid == Zxid{1, 3});
    rig.tell(MessageType::trunc, Zxid{1, 2});
    CHECK(rig.log.last().zxid == Zxid{1, 3});
}

TEST_CASE("what is committed here is never cut: not by this learner's word, nor by the replica's") {
    Rig rig(5);
    rig.learner.stop();
    rig.learner.start(rig.now, PeerId{2}, Zxid{1, 4});  // it knew as a leader
    rig.to_promise();
    SUBCASE("below") {
        rig.tell(MessageType::trunc, Zxid{1, 3});
        CHECK(std::string(rig.learner.departure()) == "the leader lacks what is committed");
        CHECK(rig.log.last().zxid == Zxid{1, 5});
    }
    SUBCASE("above") {
        rig.tell(MessageType::trunc, Zxid{1, 4});
        CHECK(rig.learner.departure() == nullptr);
        CHECK(rig.log.last().zxid == Zxid{1, 4});
    }
    SUBCASE("more than it has reported") {
        rig.tell(MessageType::diff, Zxid{1, 6});
        CHECK(rig.learner.departure() != nullptr);
    }
}

TEST_CASE("F3 only what follows is appended, checksum included; a gap is said at once") {
    Rig rig;
    rig.to_following();
    LogPosition last;
    const Bytes first = entry(last, Zxid{5, 1}), second = entry(last, Zxid{5, 2});
    const Bytes third = entry(last, Zxid{5, 3});
    rig.propose(first, Zxid{});
    CHECK(rig.log.last().zxid == Zxid{5, 1});
    rig.said.clear();
    rig.propose(third, Zxid{5, 2});
    CHECK(rig.log.last().zxid == Zxid{5, 1});
    const std::vector<Message> gaps = rig.take(MessageType::ack);
    REQUIRE(gaps.size() == 1);
    CHECK(gaps[0].offset == 1);
    CHECK(gaps[0].commit == Zxid{5, 1});
    LogPosition other{Zxid{5, 1}, 12345};
    rig.propose(entry(other, Zxid{5, 2}), Zxid{5, 1});  // another history's
    CHECK(rig.log.last().zxid == Zxid{5, 1});
    rig.propose(first + second + third, Zxid{});  // the first is there already
    CHECK(rig.log.last().zxid == Zxid{5, 3});
    rig.propose(first + second, Zxid{});
    CHECK(rig.log.size() == 3);
    rig.log.audit();
}

TEST_CASE("F3 damaged, cut and senseless records are not appended; what is before them is") {
    LogPosition last;
    const Bytes first = entry(last, Zxid{5, 1});
    LogPosition ahead = last;
    const Bytes second = entry(last, Zxid{5, 2});
    for (std::size_t i = 0; i <= second.size(); i++) {
        Rig rig;
        rig.to_following();
        Bytes bad = second;
        if (i < bad.size()) bad[i] = static_cast<char>(bad[i] ^ 0x40);
        if (i == bad.size()) bad.pop_back();
        rig.propose(first + bad, Zxid{});
        CHECK(rig.log.last().zxid == Zxid{5, 1});
        CHECK(rig.learner.entries_corrupt() == 1);
    }
    Rig rig;
    rig.to_following();
    rig.propose(first + entry(ahead, Zxid{6, 1}), Zxid{});  // of an epoch that is not the leader's
    CHECK(rig.log.last().zxid == Zxid{5, 1});
    rig.propose(Bytes(4, '\0'), Zxid{});
    rig.propose("abc", Zxid{});
    rig.propose("", Zxid{});
    CHECK(rig.log.last().zxid == Zxid{5, 1});
    CHECK(rig.learner.entries_corrupt() == 3);
}

TEST_CASE("F4 the epoch becomes current when the initial history is there, not before") {
    Rig rig(2);
    rig.to_receiving();
    rig.tell(MessageType::new_leader, Zxid{1, 4});
    rig.step();
    CHECK(rig.log.epochs().current == 1);
    LogPosition last = rig.log.last();
    rig.propose(entry(last, Zxid{1, 3}), Zxid{1, 2});
    CHECK(rig.log.epochs().current == 1);
    rig.propose(entry(last, Zxid{1, 4}), Zxid{1, 3});
    CHECK(rig.log.epochs().current == 5);
}

TEST_CASE("F4 F5 the ack of the epoch waits for the disk; so does serving") {
    Rig rig;
    rig.to_receiving();
    rig.step();
    rig.said.clear();
    rig.disk.hold_flushes();
    rig.tell(MessageType::new_leader, Zxid{});
    for (int i = 0; i < 3; i++) rig.step();
    for (const Message& ack : rig.take(MessageType::ack)) CHECK(ack.phase == 0);
    rig.tell(MessageType::up_to_date, Zxid{});
    CHECK_FALSE(rig.learner.is_serving());
    rig.disk.release();
    rig.step();
    std::vector<Message> acks = rig.take(MessageType::ack);
    REQUIRE_FALSE(acks.empty());
    CHECK(acks.back().phase == 1);
    rig.tell(MessageType::up_to_date, Zxid{});
    CHECK(rig.learner.is_serving());
    rig.step();
    acks = rig.take(MessageType::ack);
    REQUIRE_FALSE(acks.empty());
    CHECK(acks.back().phase == 2);
}

TEST_CASE("F5 an entry is acknowledged when it is durable, and said to be received before") {
    Rig rig;
    rig.to_following();
    rig.disk.hold_flushes();
    LogPosition last;
    rig.propose(entry(last, Zxid{5, 1}), Zxid{});
    rig.step();
    for (const Message& ack : rig.take(MessageType::ack)) {
        CHECK(ack.zxid == Zxid{});
        CHECK(ack.commit == Zxid{5, 1});
    }
    rig.disk.release();
    rig.step();
    const std::vector<Message> acks = rig.take(MessageType::ack);
    REQUIRE(acks.size() == 1);
    CHECK(acks[0].zxid == Zxid{5, 1});
}

TEST_CASE("a repeated proposal is acknowledged again: the answer was lost") {
    Rig rig;
    rig.to_following();
    LogPosition last;
    const Bytes record = entry(last, Zxid{5, 1});
    rig.propose(record, Zxid{});
    rig.step();
    CHECK(rig.take(MessageType::ack).size() == 1);
    rig.step();
    CHECK(rig.take(MessageType::ack).empty());
    rig.propose(record, Zxid{});
    rig.step();
    CHECK(rig.take(MessageType::ack).size() == 1);
}

TEST_CASE("what was acknowledged is said again with a ping, while the leader may not know it") {
    Rig rig(2);
    const auto acks_after_ping = [&](Zxid commit) {
        Message ping = rig.make(MessageType::ping);
        ping.sequence = 1, ping.commit = commit;
        rig.said.clear();
        rig.tell(ping);
        rig.step();
        return rig.take(MessageType::ack);
    };
    rig.to_receiving();
    rig.tell(MessageType::new_leader, Zxid{1, 2});
    rig.step();
    rig.step();
    REQUIRE(rig.log.durable_epochs().current == 5);
    std::vector<Message> acks = acks_after_ping(Zxid{1, 2});  // UPTODATE has not come
    REQUIRE(acks.size() == 1);
    CHECK(acks[0].phase == 1);
    CHECK(acks[0].zxid == Zxid{1, 2});
    rig.tell(MessageType::up_to_date, Zxid{1, 2});
    rig.step();
    REQUIRE(rig.learner.is_serving());
    CHECK(acks_after_ping(Zxid{1, 2}).empty());  // nothing is open between the two
    LogPosition last = rig.log.last();
    rig.propose(entry(last, Zxid{5, 1}), Zxid{1, 2});
    rig.step();
    for (int i = 0; i < 2; i++) {
        acks = acks_after_ping(Zxid{1, 2});  // its commit has not come
        REQUIRE(acks.size() == 1);
        CHECK(acks[0].phase == 2);
        CHECK(acks[0].zxid == Zxid{5, 1});
    }
    CHECK(acks_after_ping(Zxid{5, 1}).empty());
}

TEST_CASE("a diff or a trunc that comes again is acknowledged again: the answer was lost") {
    for (const MessageType type : {MessageType::diff, MessageType::trunc}) {
        Rig rig(3);
        rig.to_promise();
        const Zxid zxid{1, type == MessageType::diff ? 3u : 2u};
        rig.tell(type, zxid);
        rig.step();
        CHECK(rig.take(MessageType::ack).size() == 1);
        rig.step();
        CHECK(rig.take(MessageType::ack).empty());
        rig.tell(type, zxid);
        rig.step();
        const std::vector<Message> acks = rig.take(MessageType::ack);
        REQUIRE(acks.size() == 1);
        CHECK(acks[0].zxid == zxid);
        Message old = rig.make(type);
        old.zxid = zxid, old.attempt -= 1;
        rig.tell(old);
        rig.step();
        CHECK(rig.take(MessageType::ack).empty());
    }
}

TEST_CASE("commits: the highest counts, from every message that carries one, in step alone") {
    Rig rig(3);
    rig.to_promise();
    rig.tell(MessageType::commit, Zxid{1, 3});
    CHECK(rig.learner.committed() == Zxid{});
    rig.tell(MessageType::diff, Zxid{1, 3});
    rig.tell(MessageType::commit, Zxid{1, 1});
    CHECK(rig.learner.committed() == Zxid{1, 1});
    rig.tell(MessageType::ping, Zxid{1, 2});
    CHECK(rig.learner.committed() == Zxid{1, 2});
    rig.propose("", Zxid{1, 3}, Zxid{1, 3});
    CHECK(rig.learner.committed() == Zxid{1, 3});
    rig.tell(MessageType::commit, Zxid{1, 1});
    CHECK(rig.learner.committed() == Zxid{1, 3});
}

TEST_CASE("digests: the newest, with its zxid; zero is none") {
    Rig rig;
    rig.to_following();
    const auto tell = [&](std::uint64_t counter, std::uint64_t digest) {
        Message message = rig.make(MessageType::commit);
        message.commit = Zxid{5, counter}, message.digest = digest;
        rig.tell(message);
    };
    tell(2, 77);
    tell(1, 66);
    tell(3, 0);
    CHECK(rig.learner.digest_at() == Zxid{5, 2});
    CHECK(rig.learner.digest() == 77);
}

// A snapshot of 2,500 bytes at 1.9, told by the leader in pieces.
struct Fetch : Rig {
    Bytes state = Bytes(2500, 'q');
    Fetch() : Rig(2) {
        for (std::size_t i = 0; i < state.size(); i++) state[i] = static_cast<char>(i * 7);
        to_promise();
        snap();
    }
    void snap(std::uint64_t counter = 9) {
        Message message = make(MessageType::snap);
        message.zxid = Zxid{1, counter}, message.crc = 99, message.total = state.size();
        tell(message);
    }
    void chunk(std::size_t offset, std::size_t size, std::uint64_t counter = 9) {
        Message message = make(MessageType::chunk);
        message.zxid = Zxid{1, counter}, message.offset = offset, message.total = state.size();
        message.payload = BytesView(state).substr(offset, size);
        tell(message);
    }
    std::uint64_t asked() {
        const std::vector<Message> requests = take(MessageType::chunk_request);
        REQUIRE_FALSE(requests.empty());
        return requests.back().offset;
    }
};

TEST_CASE("a snapshot: chunks are asked for by offset, in order, until it is whole") {
    Fetch rig;
    CHECK(rig.learner.phase() == Phase::fetching);
    CHECK(rig.asked() == 0);
    rig.chunk(0, 1000);
    CHECK(rig.asked() == 1000);
    rig.chunk(1000, 1000);
    CHECK(rig.asked() == 2000);
    CHECK_FALSE(rig.learner.has_snapshot());
    rig.chunk(2000, 500);
    REQUIRE(rig.learner.has_snapshot());
    CHECK(rig.learner.snapshot() == rig.state);
    CHECK(rig.learner.snapshot_position().zxid == Zxid{1, 9});
    CHECK(rig.learner.snapshot_position().crc == 99);
    const LogPosition position = rig.learner.snapshot_position();
    REQUIRE(support::install_snapshot(rig.log, position, rig.state) == Errc::ok);
    rig.learner.installed();
    CHECK(rig.learner.phase() == Phase::receiving);
    CHECK(rig.learner.committed() == Zxid{1, 9});
    rig.step();
    const std::vector<Message> acks = rig.take(MessageType::ack);
    REQUIRE_FALSE(acks.empty());
    CHECK(acks.back().zxid == Zxid{1, 9});
}

TEST_CASE("a snapshot that is named again once it is installed is acknowledged again") {
    Fetch rig;
    rig.chunk(0, 2500);
    REQUIRE(rig.learner.has_snapshot());
    const LogPosition position = rig.learner.snapshot_position();
    REQUIRE(support::install_snapshot(rig.log, position, rig.state) == Errc::ok);
    rig.learner.installed();
    rig.step();
    CHECK_FALSE(rig.take(MessageType::ack).empty());
    rig.step();
    CHECK(rig.take(MessageType::ack).empty());
    rig.snap();  // the leader has not heard it, and goes on offering
    rig.step();
    const std::vector<Message> acks = rig.take(MessageType::ack);
    REQUIRE(acks.size() == 1);
    CHECK(acks[0].zxid == Zxid{1, 9});
    CHECK(rig.learner.phase() == Phase::receiving);
    rig.attempt -= 1;
    rig.snap();
    rig.step();
    CHECK(rig.take(MessageType::ack).empty());
}

TEST_CASE("faults S3: lost chunks are asked for again; repeated and reordered ones do no harm") {
    Fetch rig;
    rig.said.clear();
    rig.step(rig.timing.retry());
    CHECK(rig.asked() == 0);
    rig.chunk(1000, 1000);  // comes too early
    rig.chunk(0, 1000);
    rig.chunk(0, 1000);
    rig.chunk(500, 1000);
    CHECK(rig.asked() == 1000);
    rig.step(rig.timing.retry());
    CHECK(rig.asked() == 1000);
    rig.chunk(1000, 0);
    rig.chunk(1000, 1000, 8);  // of another snapshot
    rig.chunk(1000, 1500);
    REQUIRE(rig.learner.has_snapshot());
    CHECK(rig.learner.snapshot() == rig.state);
    rig.chunk(0, 1000);
    CHECK(rig.learner.snapshot() == rig.state);
}

TEST_CASE("a snapshot: more bytes than announced are not taken") {
    Fetch rig;
    rig.chunk(0, 2000);
    const Bytes more(501, 'x');
    Message message = rig.make(MessageType::chunk);
    message.zxid = Zxid{1, 9}, message.offset = 2000, message.total = 2500;
    message.payload = more;
    rig.tell(message);
    CHECK_FALSE(rig.learner.has_snapshot());
    rig.said.clear();
    rig.step(rig.timing.retry());
    CHECK(rig.asked() == 2000);
}

TEST_CASE("faults S2: a newer snapshot takes its place from the beginning, an older one does not") {
    Fetch rig;
    rig.chunk(0, 1000);
    rig.snap(8);
    CHECK(rig.asked() == 1000);
    rig.snap(9);
    rig.step(rig.timing.retry());
    CHECK(rig.asked() == 1000);
    rig.snap(10);
    CHECK(rig.asked() == 0);
    CHECK(rig.learner.snapshot_position().zxid == Zxid{1, 10});
}

TEST_CASE("a snapshot of an epoch to come, or below what is committed, is not taken") {
    Rig rig(5);
    rig.learner.stop();
    rig.learner.start(rig.now, PeerId{2}, Zxid{1, 4});
    rig.to_promise();
    Message snap = rig.make(MessageType::snap);
    snap.total = 10;
    SUBCASE("later") {
        snap.zxid = Zxid{6, 1};
        rig.tell(snap);
        CHECK(rig.learner.phase() == Phase::promise);
    }
    SUBCASE("of nothing") {
        rig.tell(snap);
        CHECK(rig.learner.phase() == Phase::promise);
        CHECK(rig.learner.departure() == nullptr);
    }
    SUBCASE("below") {
        snap.zxid = Zxid{1, 3};
        rig.tell(snap);
        CHECK(std::string(rig.learner.departure()) == "the leader lacks what is committed");
    }
    CHECK(rig.log.last().zxid == Zxid{1, 5});
}

TEST_CASE("faults S10: a snapshot that the replica refuses: the learner departs and says why") {
    Fetch rig;
    rig.chunk(0, 2500);
    REQUIRE(rig.learner.has_snapshot());
    rig.learner.refuse_snapshot("because");
    CHECK_FALSE(rig.learner.has_snapshot());
    CHECK(std::string(rig.learner.departure()) == "because");
}

TEST_CASE("silence: it departs when the leader has not been heard for so long, and not before") {
    Rig rig;
    rig.to_following();
    rig.step(rig.timing.silence);
    CHECK(rig.learner.departure() == nullptr);
    rig.tell(rig.make(MessageType::ping));
    rig.step(rig.timing.silence);
    CHECK(rig.learner.departure() == nullptr);
    rig.step(milliseconds(1));
    REQUIRE(rig.learner.departure() != nullptr);
    CHECK(std::string(rig.learner.departure()) == "the leader is silent");
}

TEST_CASE("a ping is answered by the list of sessions, in parts that fit") {
    Rig rig;
    rig.to_following();
    Message ping = rig.make(MessageType::ping);
    ping.sequence = 8, ping.confirmed = 3;
    CHECK_FALSE(rig.learner.pong_due());
    rig.tell(ping);
    REQUIRE(rig.learner.pong_due());
    CHECK(rig.learner.touch_confirmed() == 3);
    Bytes sessions;
    for (std::uint64_t i = 0; i < 250; i++) coord::Writer(sessions).u64(i);
    rig.learner.pong(77, sessions, 1024, rig.out);
    CHECK_FALSE(rig.learner.pong_due());
    rig.said.clear();
    rig.collect();
    REQUIRE(rig.said.size() == 3);
    Bytes got;
    for (std::size_t i = 0; i < 3; i++) {
        const Message& pong = rig.said[i].message;
        CHECK(pong.type == MessageType::pong);
        CHECK(pong.sequence == 8);
        CHECK(pong.touch == 77);
        CHECK(pong.offset == i);
        CHECK(pong.total == 3);
        got += rig.said[i].payload;
    }
    CHECK(got == sessions);
    rig.tell(ping);
    rig.learner.pong(78, "", 1024, rig.out);
    rig.said.clear();
    rig.collect();
    CHECK(rig.said.size() == 1);  // none is one empty part
}

TEST_CASE("pings are counted anew for each leader, and an overtaken one confirms nothing") {
    Rig rig;
    rig.to_following();
    const auto answered = [&](std::uint64_t sequence, std::uint64_t confirmed) {
        Message ping = rig.make(MessageType::ping, rig.learner.epoch());
        ping.sequence = sequence, ping.confirmed = confirmed;
        rig.tell(ping);
        rig.said.clear();
        rig.learner.pong_alone(rig.out);
        rig.collect();
        REQUIRE(rig.said.size() == 1);
        return rig.said[0].message.sequence;
    };
    CHECK(answered(50, 8) == 50);
    CHECK(answered(49, 7) == 50);
    CHECK(rig.learner.touch_confirmed() == 8);
    rig.learner.stop();
    rig.learner.start(rig.now, PeerId{2});
    CHECK(rig.learner.touch_confirmed() == 0);
    rig.said.clear();
    rig.to_promise(6);
    CHECK(answered(3, 2) == 3);
    CHECK(rig.learner.touch_confirmed() == 2);
}

TEST_CASE("requests and syncs go to the leader, its answers come back") {
    Rig rig;
    rig.to_following();
    rig.learner.request("payload", rig.out);
    rig.learner.request_sync(44, rig.out);
    rig.collect();
    REQUIRE(rig.said.size() == 2);
    CHECK(rig.said[0].message.type == MessageType::request);
    CHECK(rig.said[0].payload == "payload");
    CHECK(rig.said[1].message.type == MessageType::sync);
    CHECK(rig.said[1].message.sequence == 44);
    std::uint64_t sequence = 0;
    Zxid zxid;
    CHECK_FALSE(rig.learner.take_synced(sequence, zxid));
    Message synced = rig.make(MessageType::synced);
    synced.sequence = 44, synced.zxid = Zxid{5, 6};
    rig.tell(synced);
    REQUIRE(rig.learner.take_synced(sequence, zxid));
    CHECK(sequence == 44);
    CHECK(zxid == Zxid{5, 6});
    CHECK_FALSE(rig.learner.take_synced(sequence, zxid));
}

TEST_CASE("a storage that fails is reported") {
    Rig rig;
    rig.to_following();
    rig.disk.fail();
    LogPosition last;
    rig.propose(entry(last, Zxid{5, 1}), Zxid{});
    CHECK(rig.learner.error() == Errc::storage_failed);
}

TEST_CASE("hostile leaders: any message with any field never trips an assertion") {
    for (std::uint64_t seed = 1; seed <= 20; seed++) {
        CAPTURE(seed);
        coord::Rng rng(support::seed + seed);
        Rig rig(seed % 4);
        rig.to_promise();
        const auto any = [&]() -> std::uint64_t {
            switch (rng.below(6)) {
                case 0: return 0;
                case 1: return UINT64_MAX;
                case 2: return rng.below(8);
                case 3: return rig.log.last().zxid.value;
                case 4: return rig.log.last().zxid.value - 1;
                default: return rng.next();
            }
        };
        for (int i = 0; i < 3000; i++) {
            LogPosition last = rig.log.last();
            Bytes payload(rng.below(30), static_cast<char>(rng.next()));
            const std::uint64_t next = last.zxid.value + 1 + rng.below(3);
            const bool sound = (next & Zxid::counter_max) > 0;
            if (rng.chance(700) && sound) payload = entry(last, Zxid{next});
            Message m = rig.make(static_cast<MessageType>(1 + rng.below(20)),
                                 rig.learner.epoch() + (rng.chance(50) ? 1 : 0));
            for (const Said& one : rig.said) rig.attempt = one.message.attempt;
            rig.said.clear();
            m.attempt = rng.chance(900) ? rig.attempt : any();
            m.zxid = Zxid{any()}, m.commit = Zxid{any()}, m.crc = static_cast<std::uint32_t>(any());
            m.sequence = any(), m.offset = rng.below(40), m.total = rng.below(40);
            m.digest = any(), m.confirmed = any(), m.payload = payload;
            rig.tell(m);
            if (rng.chance(300)) rig.step(milliseconds(static_cast<std::int64_t>(rng.below(20))));
            if (rig.learner.pong_due()) rig.learner.pong(1, "", 1024, rig.out);
            if (rig.learner.has_snapshot()) rig.learner.refuse_snapshot("it is random");
            std::uint64_t sequence = 0;
            Zxid zxid;
            while (rig.learner.take_synced(sequence, zxid)) {}
            rig.log.audit();
            if (rig.learner.departure() == nullptr) continue;
            rig.learner.stop();
            rig.learner.start(rig.now, PeerId{2});
        }
    }
}

TEST_CASE("F6 it says which storage it is, whether that may found, and what it answers") {
    for (const bool may_found : {false, true}) {
        Rig rig(2);
        rig.learner.set_may_found(may_found);
        rig.step();
        const std::vector<Message> infos = rig.take(MessageType::follower_info);
        REQUIRE(infos.size() == 1);
        CHECK(infos[0].storage == rig.disk.id());
        CHECK(infos[0].phase == (may_found ? 1 : 0));
        rig.attempt = infos[0].attempt;
        Message info = rig.make(MessageType::leader_info, 5);
        info.sequence = 4711;
        rig.tell(info);
        rig.step();
        const std::vector<Message> acks = rig.take(MessageType::ack_epoch);
        REQUIRE(acks.size() == 1);
        CHECK(acks[0].storage == rig.disk.id());
        CHECK(acks[0].phase == (may_found ? 1 : 0));
        CHECK(acks[0].sequence == 4711);
        info.sequence = 5000;  // of the attempt before: it does not answer that one
        rig.tell(info);
        rig.step(rig.timing.retry());
        for (const Message& ack : rig.take(MessageType::ack_epoch)) CHECK(ack.sequence == 4711);
    }
}

// Its leader, 2, has a lease of 300 ms in epoch 5.
struct Leased : Rig {
    explicit Leased(bool is_flushed = true) : Rig(3) {
        log.set_time(now);
        step();
        attempt = take(MessageType::follower_info).at(0).attempt;
        Message info = make(MessageType::leader_info);
        info.total = 300000;
        tell(info);
        REQUIRE(learner.phase() == Phase::promise);
        if (!is_flushed) return;
        step();
        attempt = take(MessageType::ack_epoch).at(0).attempt;
        tell(MessageType::diff, log.last().zxid);
        tell(MessageType::new_leader, log.last().zxid);
        step();
        tell(MessageType::up_to_date, log.last().zxid);
        step();
        said.clear();
    }
    // RETURNS whether the answer to that ping promises the lease.
    bool promises(std::uint64_t sequence, std::uint32_t epoch = 5) {
        Message ping = make(MessageType::ping, epoch);
        ping.sequence = sequence;
        tell(ping);
        if (sequence % 2 == 0) learner.pong_alone(out);
        if (sequence % 2 == 1) learner.pong(1, {}, 1024, out);
        collect();
        const std::vector<Message> pongs = take(MessageType::pong);
        REQUIRE(pongs.size() == 1);
        CHECK(pongs[0].sequence >= sequence);
        CHECK(pongs[0].phase <= 1);
        return pongs[0].phase == 1;
    }
    // RETURNS whether it has promised a later epoch to that leader.
    bool accepts(std::uint32_t epoch) {
        Message info = make(MessageType::leader_info, epoch);
        info.attempt = attempt;
        tell(info);
        return log.epochs().accepted == epoch;
    }
};

TEST_CASE("F9 it promises a lease with its answer to a ping, once that is durable") {
    Leased rig(false);
    CHECK(rig.log.epochs().lease == milliseconds(300));
    CHECK_FALSE(rig.promises(1));
    CHECK_FALSE(rig.promises(2));
    rig.step();
    CHECK(rig.promises(3));
    CHECK(rig.promises(4));
    CHECK(rig.promises(3));  // as of 4: it has received that before
}

TEST_CASE("F9 no later epoch for the length of the lease since the newest ping, to nobody") {
    Leased rig;
    REQUIRE(rig.promises(7));
    rig.now = rig.now + milliseconds(200), rig.log.set_time(rig.now);
    REQUIRE(rig.promises(8));
    rig.now = rig.now + milliseconds(299), rig.log.set_time(rig.now);
    CHECK_FALSE(rig.accepts(6));
    CHECK(rig.learner.departure() == nullptr);  // as if it were lost
    CHECK(rig.learner.epoch() == 5);
    rig.learner.stop();
    rig.learner.start(rig.now, PeerId{3});  // another leader asks
    Message asked;
    rig.learner.send(rig.now, rig.out);
    rig.out.drain([&](PeerId, BytesView bytes) {
        REQUIRE(coord::decode_message(bytes, asked) == Errc::ok);
    });
    Message info = rig.make(MessageType::leader_info, 6);
    info.from = PeerId{3}, info.attempt = asked.attempt;
    REQUIRE(rig.learner.receive(rig.now, info, rig.out));
    CHECK(rig.log.epochs().accepted == 5);
    rig.now = rig.now + milliseconds(1), rig.log.set_time(rig.now);
    REQUIRE(rig.learner.receive(rig.now, info, rig.out));
    CHECK(rig.log.epochs().accepted == 6);
    CHECK(rig.log.epochs().lease == coord::Duration{});  // that leader has none
}

TEST_CASE("F9 a ping of the epoch before is answered without a promise in the next one") {
    Leased rig;
    Message ping = rig.make(MessageType::ping);
    ping.sequence = 9;
    rig.tell(ping);  // and not answered yet
    rig.now = rig.now + milliseconds(300), rig.log.set_time(rig.now);
    Message info = rig.make(MessageType::leader_info, 6);
    info.total = 300000;
    rig.tell(info);
    REQUIRE(rig.log.epochs().accepted == 6);
    rig.flush();
    rig.learner.pong_alone(rig.out);
    rig.collect();
    std::vector<Message> pongs = rig.take(MessageType::pong);
    REQUIRE(pongs.size() == 1);
    CHECK(pongs[0].epoch == 6);
    CHECK(pongs[0].phase == 0);
    CHECK(rig.promises(10, 6));
}

TEST_CASE("F9 F7 who observes without having promised the epoch promises no lease") {
    for (const std::uint32_t away : {0u, 5u, 9u}) {  // the epoch that it has promised to another
        CAPTURE(away);
        Rig rig(3);
        if (away > 0) {
            REQUIRE(rig.log.accept_epoch(away, PeerId{3}, milliseconds(200)) == Errc::ok);
        }
        rig.flush();
        rig.learner.stop();
        rig.learner.start(rig.now, PeerId{2}, {}, true);
        rig.step();
        rig.attempt = rig.take(MessageType::follower_info).at(0).attempt;
        Message info = rig.make(MessageType::leader_info);
        info.total = 300000;
        rig.tell(info);
        rig.step();
        rig.said.clear();
        Message ping = rig.make(MessageType::ping);
        ping.sequence = 1;
        rig.tell(ping);
        rig.learner.pong_alone(rig.out);
        rig.collect();
        const std::vector<Message> pongs = rig.take(MessageType::pong);
        REQUIRE(pongs.size() == 1);
        CHECK(pongs[0].phase == (away > 0 ? 0 : 1));
        CHECK(rig.log.is_leased() == (away == 0));
    }
}

TEST_CASE("F9 a lease that is longer than its own silence is none that it promises") {
    const auto silence = static_cast<std::uint64_t>(coord::Timing{}.silence.ns / 1000);
    for (const std::uint64_t length : {silence, silence + 1, std::uint64_t{UINT32_MAX} + 1}) {
        CAPTURE(length);
        Rig rig(3);
        rig.step();
        rig.attempt = rig.take(MessageType::follower_info).at(0).attempt;
        Message info = rig.make(MessageType::leader_info);
        info.total = length;
        rig.tell(info);
        CHECK(rig.log.epochs().accepted == 5);
        CHECK((rig.log.epochs().lease > coord::Duration{}) == (length == silence));
    }
}

}  // TEST_SUITE
