// Chapters 10 to 12: observers that learn from a follower. First the feeder message by message, and
// who is fed; then ensembles in a simulation. Voters are 1 to n, and observers come after them.

#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "coord.hpp"
#include "observers_rig.hpp"
#include "support.hpp"

namespace {

using coord::Bytes;
using coord::BytesView;
using coord::CreateMode;
using coord::Decline;
using coord::Errc;
using coord::Leader;
using coord::Learner;
using coord::LogPosition;
using coord::Message;
using coord::MessageType;
using coord::milliseconds;
using coord::nanoseconds;
using coord::PeerId;
using coord::Role;
using coord::seconds;
using coord::Session;
using coord::SessionState;
using coord::Simulation;
using coord::SimulationOptions;
using coord::Sync;
using coord::Time;
using coord::Txn;
using coord::Zxid;

using support::entry;

struct Said {
    Message message;
    Bytes payload;
};

// Of replica 1, in epoch 1, with so many entries: it follows 2, and feeds 4 and others.
struct Rig {
    coord::MemoryStorage disk;
    coord::Log log{disk};
    coord::Limits limits;
    coord::Timing timing;
    Leader leader;
    coord::Outbox out{PeerId{1}, 7, 11};
    Time now{1000000000};
    Leader::Heard heard;
    std::deque<Said> said;

    explicit Rig(std::uint64_t entries, std::uint64_t committed, std::uint32_t observers_max = 256)
        : Rig(entries, committed, with(observers_max)) {}
    Rig(std::uint64_t entries, std::uint64_t committed, const coord::Limits& own)
        : limits(own),
          leader(PeerId{1}, coord::Voters{{PeerId{1}, PeerId{2}, PeerId{3}}}, timing, log, limits,
                 1024) {
        REQUIRE(log.open() == Errc::ok);
        REQUIRE(log.accept_epoch(1, PeerId{2}) == Errc::ok);
        REQUIRE(log.set_current_epoch(1) == Errc::ok);
        for (std::uint64_t i = 1; i <= entries; i++) append();
        flush();
        heard.committed = Zxid{1, committed};
        leader.feed(now, PeerId{2}, 1, heard.committed);
    }
    static coord::Limits with(std::uint32_t observers_max) {
        coord::Limits limits;
        limits.observers_max = observers_max;
        return limits;
    }
    void append() {
        LogPosition last = log.last();
        const Bytes record = entry(last, Zxid{1, last.zxid.counter() + 1});
        Txn txn;
        REQUIRE(coord::decode_entry(record, txn) == Errc::ok);
        REQUIRE(log.append(record, txn) == Errc::ok);
    }
    void flush() {
        REQUIRE(log.flush() == Errc::ok);
        REQUIRE(log.refresh_durable() == Errc::ok);
    }
    void collect() {
        out.drain([&](PeerId, BytesView bytes) {
            Said one;
            REQUIRE(coord::decode_message(bytes, one.message) == Errc::ok);
            one.payload = Bytes(one.message.payload);
            said.push_back(one);
        });
    }
    void step(coord::Duration passed = {}) {
        now = now + passed;
        leader.feed_on(now, heard, out);
        collect();
        leader.audit(coord::Machine{limits, 1});
    }
    std::vector<Said> take(MessageType type, std::uint32_t to = 4) {
        std::vector<Said> found;
        for (const Said& one : said) {
            if (one.message.type == type && one.message.to == PeerId{to}) found.push_back(one);
        }
        return found;
    }
    std::size_t count(MessageType type, std::uint32_t to = 4) { return take(type, to).size(); }
    Message from(std::uint32_t peer, MessageType type) {
        Message message;
        message.type = type, message.from = PeerId{peer}, message.to = PeerId{1};
        message.nonce = 20 + peer, message.epoch = 1, message.attempt = 5;
        message.storage = 100 + peer;
        if (type == MessageType::follower_info) message.epoch = 0, message.phase = 6;
        return message;
    }
    bool tell(const Message& message) {
        const bool taken = leader.receive(now, message, out);
        collect();
        return taken;
    }
    bool ask(std::uint32_t peer = 4) { return tell(from(peer, MessageType::follower_info)); }
    void report(LogPosition have, std::uint32_t peer = 4) {
        Message message = from(peer, MessageType::ack_epoch);
        message.zxid = have.zxid, message.crc = have.crc, message.current_epoch = 1;
        tell(message);
    }
    void ack(Zxid zxid, std::uint32_t peer = 4) {
        Message message = from(peer, MessageType::ack);
        message.zxid = message.commit = zxid, message.phase = 2 + 4;
        tell(message);
    }
    void observe(std::uint32_t peer = 4) {
        REQUIRE(ask(peer));
        report({}, peer);
        ack(Zxid{}, peer);
        step();
    }
    // The leader has pinged this follower once more.
    void pinged(coord::Duration passed = milliseconds(100)) {
        heard.pings += 1;
        step(passed);
    }
    void touch(std::uint64_t number, const std::vector<std::uint64_t>& ids, std::uint64_t part = 0,
               std::uint64_t parts = 1, std::uint32_t peer = 4) {
        Message message = from(peer, MessageType::pong);
        Bytes list;
        coord::Writer writer(list);
        for (const std::uint64_t id : ids) writer.u64(id);
        message.touch = number, message.offset = part, message.total = parts;
        message.payload = list;
        CHECK(tell(message));
    }
    std::vector<std::uint64_t> taken(std::uint64_t own_touch) {
        Bytes list;
        coord::Writer writer(list);
        leader.take_touched(own_touch, writer);
        std::vector<std::uint64_t> ids;
        for (coord::Reader in(list); in.left() > 0;) ids.push_back(in.u64());
        return ids;
    }
    std::uint64_t confirmed(std::uint32_t peer = 4) {
        said.clear();
        pinged();
        const std::vector<Said> pings = take(MessageType::ping, peer);
        REQUIRE(pings.size() == 1);
        return pings[0].message.confirmed;
    }
};

std::size_t count_entries(const std::vector<Said>& proposals, Zxid& last) {
    std::size_t count = 0;
    for (const Said& one : proposals) {
        for (BytesView rest = one.payload; !rest.empty(); count++) {
            const std::uint32_t length = coord::Reader(rest).u32();
            Txn txn;
            REQUIRE(coord::decode_entry(rest.substr(0, length), txn) == Errc::ok);
            last = txn.zxid;
            rest.remove_prefix(length);
        }
    }
    return count;
}

using Ids = std::vector<std::uint64_t>;

}  // namespace

TEST_SUITE("12 feeders") {

// -- The feeder ----------------------------------------------------------------------------------

TEST_CASE("Z26 what is fed is committed, and says whose epoch it is") {
    Rig rig(9, 5);
    CHECK(rig.ask());
    REQUIRE(rig.count(MessageType::leader_info) == 1);
    CHECK(rig.take(MessageType::leader_info)[0].message.leader == PeerId{2});
    CHECK(rig.take(MessageType::leader_info)[0].message.epoch == 1);
    rig.report({});
    CHECK(rig.count(MessageType::diff) == 1);
    REQUIRE(rig.count(MessageType::new_leader) == 1);
    CHECK(rig.take(MessageType::new_leader)[0].message.zxid == Zxid{1, 5});
    rig.ack(Zxid{});
    rig.step();
    Zxid last;
    CHECK(count_entries(rig.take(MessageType::proposal), last) == 5);
    CHECK(last == Zxid{1, 5});
    rig.ack(Zxid{1, 5});
    rig.said.clear();
    rig.step(milliseconds(100));
    CHECK(rig.count(MessageType::proposal) == 0);
    rig.heard.committed = Zxid{1, 8};
    rig.step();
    CHECK(count_entries(rig.take(MessageType::proposal), last) == 3);
    CHECK(last == Zxid{1, 8});
    CHECK(rig.take(MessageType::proposal)[0].message.commit == Zxid{1, 8});
}

TEST_CASE("Z26 what an observer acknowledges and answers is for its feeder alone") {
    Rig rig(9, 5);
    rig.observe();
    rig.ack(Zxid{1, 9});
    rig.touch(1, {7});
    rig.pinged();
    CHECK(rig.leader.committed() == Zxid{1, 5});
    for (const Said& one : rig.said) CHECK(one.message.to == PeerId{4});
}

TEST_CASE("Z26 a feeder pings when its leader has, and never by itself") {
    Rig rig(3, 3);
    rig.observe();
    rig.said.clear();
    for (int i = 0; i < 50; i++) rig.step(milliseconds(100));
    CHECK(rig.count(MessageType::ping) == 0);
    for (int i = 0; i < 5; i++) rig.pinged();
    CHECK(rig.count(MessageType::ping) == 0);  // of whom it has not heard for so long
    CHECK(rig.leader.observers() == 0);
    rig.observe();
    rig.said.clear();
    for (int i = 0; i < 5; i++) rig.pinged();
    CHECK(rig.count(MessageType::ping) == 5);
    rig.said.clear();
    rig.touch(1, {});
    for (int i = 0; i < 100; i++) rig.pinged(milliseconds(1));  // rounds of syncs
    CHECK(rig.count(MessageType::ping) <= 2);
}

TEST_CASE("Z26 a ping has the leader's digest of what was fed, and says that its disk is full") {
    Rig rig(9, 5);
    rig.observe();
    rig.heard.digest_at = Zxid{1, 6}, rig.heard.digest = 77, rig.heard.is_full = true;
    rig.said.clear();
    rig.pinged();
    REQUIRE(rig.count(MessageType::ping) == 1);
    CHECK(rig.take(MessageType::ping)[0].message.digest == 0);
    CHECK(rig.take(MessageType::ping)[0].message.phase == 1);
    CHECK(rig.take(MessageType::ping)[0].message.commit == Zxid{1, 5});
    rig.heard.committed = Zxid{1, 6}, rig.heard.is_full = false;
    rig.said.clear();
    rig.pinged();
    CHECK(rig.take(MessageType::ping)[0].message.digest == 77);
    CHECK(rig.take(MessageType::ping)[0].message.phase == 0);
}

TEST_CASE("Z26 sessions at observers are said to be alive once for each time that they were said") {
    Rig rig(3, 3);
    rig.observe(4), rig.observe(5);
    rig.touch(11, {1, 2}), rig.touch(3, {9}, 0, 1, 5);
    CHECK(rig.taken(100) == Ids{1, 2, 9});
    CHECK(rig.taken(101).empty());
    rig.touch(11, {1, 2});  // it comes twice, and is of then
    CHECK(rig.taken(102).empty());
    rig.touch(12, {1});
    CHECK(rig.taken(103) == Ids{1});
}

TEST_CASE("Z26 a touch is confirmed when the leader has confirmed the one in which it was") {
    Rig rig(9, 5);
    rig.observe();
    rig.touch(11, {1});
    CHECK(rig.confirmed() == 0);
    (void)rig.taken(100);
    rig.touch(12, {1});
    rig.heard.confirmed = 99, rig.heard.confirmed_at = Zxid{1, 5};
    CHECK(rig.confirmed() == 0);
    rig.heard.confirmed = 100;
    CHECK(rig.confirmed() == 11);
    (void)rig.taken(101);
    SUBCASE("the leader has not heard that one, and one after it") {
        (void)rig.taken(102);
        rig.heard.confirmed = 102;
        CHECK(rig.confirmed() == 11);
    }
    SUBCASE("an expiry may stand before what is fed") {
        rig.heard.confirmed = 101, rig.heard.confirmed_at = Zxid{1, 7};
        CHECK(rig.confirmed() == 11);
        rig.heard.committed = Zxid{1, 6};
        rig.heard.confirmed_at = Zxid{1, 9};  // of later pings, which say no more
        CHECK(rig.confirmed() == 11);
        rig.heard.committed = Zxid{1, 7};
        CHECK(rig.confirmed() == 12);
    }
    SUBCASE("another life of it has touched nothing") {
        Message reborn = rig.from(4, MessageType::follower_info);
        reborn.nonce = 99;
        CHECK(rig.tell(reborn));
        rig.heard.confirmed = 101;
        CHECK(rig.confirmed() == 0);
    }
}

TEST_CASE("Z26 a list in parts counts when all of them are in one touch") {
    Rig rig(3, 3);
    rig.observe();
    rig.heard.confirmed_at = Zxid{1, 3};
    rig.touch(11, {1, 2}, 0, 2);
    (void)rig.taken(100);
    rig.heard.confirmed = 100;
    CHECK(rig.confirmed() == 0);
    rig.touch(11, {3}, 1, 2);
    CHECK(rig.taken(101) == Ids{1, 2, 3});
    rig.heard.confirmed = 101;
    CHECK(rig.confirmed() == 11);
}

TEST_CASE("Z26 a sync is answered by one that the feeder has asked for later") {
    Rig rig(9, 5);
    rig.observe(4), rig.observe(5);
    const auto sync = [&](std::uint32_t peer, std::uint64_t sequence) {
        Message message = rig.from(peer, MessageType::sync);
        message.sequence = sequence;
        CHECK(rig.tell(message));
    };
    CHECK_FALSE(rig.leader.is_sync_due());
    sync(4, 7);
    CHECK(rig.leader.is_sync_due());
    rig.leader.begin_sync(1000);
    CHECK_FALSE(rig.leader.is_sync_due());
    sync(5, 8);
    rig.leader.begin_sync(1001);
    sync(5, 9);
    rig.leader.on_synced(1000, Zxid{1, 6}, rig.out);
    rig.collect();
    REQUIRE(rig.count(MessageType::synced) == 1);
    CHECK(rig.take(MessageType::synced)[0].message.sequence == 7);
    CHECK(rig.take(MessageType::synced)[0].message.zxid == Zxid{1, 6});
    CHECK(rig.count(MessageType::synced, 5) == 0);
    rig.leader.on_synced(1001, Zxid{1, 7}, rig.out);
    rig.collect();
    REQUIRE(rig.count(MessageType::synced, 5) == 1);  // and not of 9, which came later
    CHECK(rig.take(MessageType::synced, 5)[0].message.sequence == 8);
    // Asked for again on a long way: what answers the first time will do.
    rig.leader.begin_sync(1002);
    for (std::uint64_t i = 1003; i < 1010; i++) sync(5, 9), rig.leader.begin_sync(i);
    rig.leader.on_synced(1002, Zxid{1, 8}, rig.out);
    rig.collect();
    CHECK(rig.count(MessageType::synced, 5) == 2);
    CHECK(rig.leader.syncs() == 0);
}

TEST_CASE("Z26 an answer that no sync of this feeding can have answers none") {
    Rig rig(9, 5);
    rig.observe();
    Message sync = rig.from(4, MessageType::sync);
    sync.sequence = 7;
    CHECK(rig.tell(sync));
    for (const std::uint64_t number : {1ull, 1000ull, 1001ull, 1ull << 62}) {
        rig.leader.on_synced(number, Zxid{1, 2}, rig.out);  // before it has asked
    }
    rig.leader.begin_sync(1000);
    rig.leader.on_synced(1001, Zxid{1, 2}, rig.out);  // of a life before: any number
    rig.leader.on_synced(1ull << 62, Zxid{1, 2}, rig.out);
    rig.leader.on_synced(999, Zxid{1, 2}, rig.out);
    rig.collect();
    CHECK(rig.count(MessageType::synced) == 0);
    rig.leader.stop();
    rig.leader.feed(rig.now, PeerId{2}, 1, rig.heard.committed);
    rig.observe();
    CHECK(rig.tell(sync));
    rig.leader.on_synced(1000, Zxid{1, 2}, rig.out);  // to what it asked as it fed before
    rig.leader.begin_sync(2000);
    rig.leader.on_synced(1000, Zxid{1, 2}, rig.out);
    rig.collect();
    CHECK(rig.count(MessageType::synced) == 0);
    rig.leader.on_synced(2000, Zxid{1, 6}, rig.out);
    rig.collect();
    REQUIRE(rig.count(MessageType::synced) == 1);
    CHECK(rig.take(MessageType::synced)[0].message.zxid == Zxid{1, 6});
}

TEST_CASE("Z26 what is said early is said once more with a number, and confirms nothing before") {
    Rig rig(3, 3);
    rig.observe(4), rig.observe(5);
    rig.heard.confirmed_at = Zxid{1, 3};
    const auto early = [&] {
        Bytes list;
        coord::Writer writer(list);
        rig.leader.say_early(writer);
        Ids ids;
        for (coord::Reader in(list); in.left() > 0;) ids.push_back(in.u64());
        return ids;
    };
    rig.touch(11, {1, 2});
    CHECK(rig.leader.has_touched());
    CHECK(early() == Ids{1, 2});
    CHECK_FALSE(rig.leader.has_touched());
    CHECK(early().empty());
    rig.heard.confirmed = 99;
    CHECK(rig.confirmed() == 0);
    rig.touch(3, {9}, 0, 1, 5);
    CHECK(early() == Ids{9});
    CHECK(rig.taken(100) == Ids{1, 2, 9});
    rig.heard.confirmed = 100;
    CHECK(rig.confirmed() == 11);
    CHECK(rig.take(MessageType::ping, 5)[0].message.confirmed == 3);
}

TEST_CASE("Z26 a feeder judges no clones: of two lives of an observer it hears whom it hears") {
    Rig rig(3, 3);
    rig.observe();
    rig.pinged();
    Message pong = rig.from(4, MessageType::pong);
    const auto answer = [&](std::uint64_t nonce) {
        rig.pinged();
        pong.nonce = nonce, pong.sequence = rig.take(MessageType::ping).back().message.sequence;
        CHECK(rig.tell(pong));
    };
    for (int i = 0; i < 6; i++) answer(i % 2 == 0 ? 24 : 77);
    CHECK(rig.count(MessageType::refused) == 0);
    CHECK(rig.leader.counters().refusals == 0);
}

TEST_CASE("Z26 it names the length of its leader's lease, and counts no promise") {
    Rig rig(3, 3);
    REQUIRE(rig.log.accept_epoch(2, PeerId{3}, milliseconds(300)) == Errc::ok);
    REQUIRE(rig.log.set_current_epoch(2) == Errc::ok);
    rig.flush();
    rig.leader.stop();
    rig.leader.set_lease(milliseconds(400), milliseconds(200));  // what it would have as the leader
    rig.leader.feed(rig.now, PeerId{3}, 2, rig.heard.committed);
    rig.ask();
    REQUIRE(rig.count(MessageType::leader_info) == 1);
    CHECK(rig.take(MessageType::leader_info)[0].message.total == 300000);
    Message report = rig.from(4, MessageType::ack_epoch);
    report.epoch = 2, report.current_epoch = 1;
    rig.tell(report);
    rig.pinged();
    Message pong = rig.from(4, MessageType::pong);
    pong.epoch = 2, pong.phase = 1;
    pong.sequence = rig.take(MessageType::ping).back().message.sequence;
    CHECK(rig.tell(pong));
    rig.leader.audit(coord::Machine{rig.limits, 1});  // no promise is noted
    CHECK(rig.leader.lease_left(rig.now) == coord::Duration{});
    Message sync = rig.from(4, MessageType::sync);
    sync.epoch = 2, sync.sequence = 7;
    CHECK(rig.tell(sync));
    CHECK(rig.count(MessageType::synced) == 0);  // that is its leader's to answer
    CHECK(rig.leader.is_sync_due());
}

TEST_CASE("Z27 who has more than the feeder is waited for, and then declined; nothing is cut") {
    Rig rig(5, 5);
    LogPosition more = rig.log.last();
    (void)entry(more, Zxid{1, 6});
    rig.ask();
    rig.report(more);
    CHECK(rig.count(MessageType::trunc) + rig.count(MessageType::diff) == 0);
    SUBCASE("it comes to have it") {
        rig.append(), rig.flush();
        rig.report(more);
        CHECK(rig.count(MessageType::diff) == 1);
        CHECK(rig.count(MessageType::declined) == 0);
    }
    SUBCASE("it does not") {
        rig.now = rig.now + rig.timing.silence + milliseconds(1);
        rig.report(more);
        REQUIRE(rig.count(MessageType::declined) == 1);
        const auto taken = rig.take(MessageType::declined);
        const Message& said = taken[0].message;
        CHECK(static_cast<Decline>(said.phase) == Decline::behind);
        CHECK(said.attempt == 5);
        CHECK(rig.leader.counters().feeds_declined == 1);
    }
    CHECK(rig.count(MessageType::trunc) == 0);
}

TEST_CASE("Z27 who has another history is declined at once") {
    Rig rig(5, 5);
    rig.ask();
    rig.report(LogPosition{Zxid{1, 3}, 12345});
    REQUIRE(rig.count(MessageType::declined) == 1);
    CHECK(static_cast<Decline>(rig.take(MessageType::declined)[0].message.phase) ==
          Decline::other_history);
    CHECK(rig.count(MessageType::trunc) + rig.count(MessageType::diff) == 0);
}

TEST_CASE("Z28 a feeder takes on so many, and sends on so much between two pings") {
    Rig rig(3, 3, 2);
    rig.observe(4), rig.observe(5);
    CHECK_FALSE(rig.ask(6));
    CHECK(rig.leader.observers() == 2);
    Bytes body(900, 'x'), request;
    coord::Writer writer(request);
    writer.u64(1), writer.u64(1), writer.u64(0), writer.u8(1), writer.bytes(body);
    Message message = rig.from(4, MessageType::request);
    message.payload = request;
    for (int i = 0; i < 6000; i++) CHECK(rig.tell(message));
    std::size_t relayed = 0;
    const auto relay = [&] {
        rig.leader.take_requests([&](const Txn& txn) {
            relayed += txn.body.size();
            rig.leader.note_relayed(txn.body.size());
        });
    };
    relay();
    CHECK(relayed >= 4 * 1024 * 1024);
    CHECK(relayed <= 4 * 1024 * 1024 + body.size());
    rig.step(milliseconds(100));
    relay();
    CHECK(relayed <= 4 * 1024 * 1024 + body.size());
    rig.pinged();
    relay();
    CHECK(relayed == 6000 * body.size());
    for (std::uint64_t i = 1; i <= 5000; i++) {
        Message sync = rig.from(4, MessageType::sync);
        sync.sequence = i;
        CHECK(rig.tell(sync));
    }
    CHECK(rig.leader.syncs() == 4096);
}

TEST_CASE("Z28 what has found room again is sent on at once, and what has none waits for a ping") {
    Rig rig(3, 3);
    rig.observe();
    Bytes request;
    coord::Writer writer(request);
    writer.u64(1), writer.u64(1), writer.u64(0), writer.u8(1), writer.bytes(Bytes(900, 'x'));
    Message message = rig.from(4, MessageType::request);
    message.payload = request;
    for (int i = 0; i < 6000; i++) CHECK(rig.tell(message));
    CHECK(rig.leader.next_deadline(rig.now) == rig.now);
    rig.leader.take_requests([&](const Txn& txn) { rig.leader.note_relayed(txn.body.size()); });
    CHECK(rig.leader.next_deadline(rig.now) > rig.now);
    rig.pinged();
    CHECK(rig.leader.next_deadline(rig.now) == rig.now);
}

TEST_CASE("Z28 no more sessions wait to be said than twice those that there may be") {
    coord::Limits few;
    few.sessions_max = 10;
    Rig rig(3, 3, few);
    rig.observe(4), rig.observe(5);
    for (std::uint64_t i = 1; i <= 9; i++) rig.touch(10 + i, {1, 2, 3, 4});
    for (std::uint64_t i = 0; i < 9; i++) rig.touch(11, {5, 6, 7, 8}, i, 9, 5);
    CHECK(rig.taken(100).size() == 20);
    CHECK(rig.taken(101).empty());
}

TEST_CASE("Z26 sessions in more parts than are accounted for live, and none of them is confirmed") {
    Rig rig(3, 3);
    rig.observe();
    rig.heard.confirmed_at = Zxid{1, 3};
    for (std::uint64_t i = 0; i < 65; i++) rig.touch(11, {i}, i, 65);
    CHECK(rig.taken(100).size() == 65);
    rig.heard.confirmed = 100;
    CHECK(rig.confirmed() == 0);
}

TEST_CASE("F10 who is to vote is told so by its feeder, which goes on with the others") {
    Rig rig(3, 3);
    rig.observe(4), rig.observe(5);
    rig.leader.part_with(coord::Voters{{PeerId{1}, PeerId{2}, PeerId{3}, PeerId{4}}}, rig.out);
    rig.collect();
    REQUIRE(rig.count(MessageType::declined) == 1);
    CHECK(static_cast<Decline>(rig.take(MessageType::declined)[0].message.phase) == Decline::votes);
    CHECK(rig.take(MessageType::declined)[0].message.attempt == 5);
    CHECK(rig.count(MessageType::declined, 5) == 0);
    CHECK(rig.leader.observers() == 1);
}

// They have gone while some waited for their turn.
TEST_CASE("Z15 a feeder that feeds nobody any more streams nothing in the next step") {
    Rig rig(300, 300);
    for (std::uint32_t peer = 4; peer < 104; peer++) {
        REQUIRE(rig.ask(peer));
        rig.report({}, peer);
    }
    rig.step();
    REQUIRE(rig.leader.next_deadline(rig.now) <= rig.now);
    rig.pinged(rig.timing.silence * 3);  // it stood still
    CHECK(rig.leader.observers() == 0);
    CHECK(rig.leader.next_deadline(rig.now) > rig.now);
}

TEST_CASE("each reason to decline has a text, and no other one the same") {
    std::vector<std::string> texts;
    for (std::uint8_t i = 0; i <= 6; i++) texts.push_back(text(static_cast<Decline>(i)));
    CHECK(texts[0] == texts[6]);  // none of them
    for (std::size_t i = 1; i <= 5; i++) {
        for (std::size_t j = 0; j < i; j++) CHECK(texts[i] != texts[j]);
    }
}

// -- Who is fed ----------------------------------------------------------------------------------

namespace {

// Replica 4, which 1 feeds, in the epoch of 2.
struct Fed {
    coord::MemoryStorage disk;
    coord::Log log{disk};
    coord::Timing timing;
    Learner learner{PeerId{4}, timing, log, 100};
    coord::Outbox out{PeerId{4}, 7, 11};
    Time now{1000000000};
    std::deque<Said> said;
    LogPosition last;

    explicit Fed(std::uint64_t entries = 0) {
        REQUIRE(log.open() == Errc::ok);
        for (std::uint64_t i = 1; i <= entries; i++) {
            const Bytes record = entry(last, Zxid{1, i});
            Txn txn;
            REQUIRE(coord::decode_entry(record, txn) == Errc::ok);
            REQUIRE(log.append(record, txn) == Errc::ok);
        }
        learner.start(now, PeerId{3}, {}, true, PeerId{1});
        step();
    }
    void step() {
        learner.send(now, out);
        REQUIRE(log.flush() == Errc::ok);
        REQUIRE(log.refresh_durable() == Errc::ok);
        learner.acknowledge(now, out);
        out.drain([&](PeerId to, BytesView bytes) {
            Said one;
            REQUIRE(coord::decode_message(bytes, one.message) == Errc::ok);
            CHECK(to == PeerId{1});
            said.push_back(one);
        });
    }
    Message make(MessageType type) {
        Message message;
        message.type = type, message.from = PeerId{1}, message.nonce = 22;
        message.epoch = 5, message.attempt = said.back().message.attempt;
        return message;
    }
    bool tell(const Message& message) { return learner.receive(now, message, out); }
    void promise() {
        Message info = make(MessageType::leader_info);
        info.leader = PeerId{2};
        CHECK(tell(info));
        step();
        REQUIRE(said.back().message.type == MessageType::ack_epoch);
    }
    void begin() {
        promise();
        begin_at_once();
    }
    void begin_at_once() {
        Message diff = make(MessageType::diff);
        diff.zxid = log.last().zxid;
        CHECK(tell(diff));
        CHECK(learner.is_in_step());
    }
};

}  // namespace

TEST_CASE("F10 it asks to be fed, and promises to the leader whose epoch it is") {
    Fed fed;
    REQUIRE(fed.said.size() == 1);
    CHECK(fed.said[0].message.type == MessageType::follower_info);
    CHECK(fed.said[0].message.phase == 1 + 2 + 4);
    CHECK(fed.learner.leader() == PeerId{3});
    fed.promise();
    CHECK(fed.learner.leader() == PeerId{2});
    CHECK(fed.learner.source() == PeerId{1});
    CHECK(fed.log.epochs().accepted == 5);
    CHECK(fed.log.epochs().accepted_from == PeerId{2});
    CHECK_FALSE(fed.learner.vote());
    Message nobodys = fed.make(MessageType::leader_info);
    nobodys.epoch = 6;
    fed.tell(nobodys);
    CHECK(fed.log.epochs().accepted == 5);
}

TEST_CASE("F10 it hears that life of its feeder which it has accepted, and no other") {
    Fed fed;
    fed.begin();
    CHECK(fed.tell(fed.make(MessageType::new_leader)));
    fed.step();
    CHECK(fed.tell(fed.make(MessageType::up_to_date)));
    REQUIRE(fed.learner.is_serving());
    Message ping = fed.make(MessageType::ping);
    ping.sequence = 3, ping.confirmed = 7;
    CHECK(fed.tell(ping));
    CHECK(fed.learner.touch_confirmed() == 7);
    // It has restarted within the epoch, and its pings are counted anew.
    fed.now = fed.now + fed.timing.silence;
    Message old = ping;
    old.nonce = 99, old.sequence = 1000, old.confirmed = 5, old.commit = Zxid{5, 9};
    CHECK_FALSE(fed.tell(old));
    Message answer = fed.make(MessageType::synced);
    answer.nonce = 99, answer.sequence = 1, answer.zxid = Zxid{5, 1};
    CHECK_FALSE(fed.tell(answer));
    std::uint64_t sequence = 0;
    Zxid zxid;
    CHECK_FALSE(fed.learner.take_synced(sequence, zxid));
    CHECK(fed.learner.pings() == 3);
    CHECK(fed.learner.touch_confirmed() == 7);
    CHECK(fed.learner.committed() == Zxid{});
    CHECK(fed.learner.sources_life() == 22);
    CHECK_FALSE(fed.learner.is_silent(fed.now));
    CHECK(fed.learner.is_silent(fed.now + nanoseconds(1)));  // another life's words are none
    ping.sequence = 4, ping.confirmed = 8;
    CHECK(fed.tell(ping));
    CHECK(fed.learner.touch_confirmed() == 8);
}

TEST_CASE("F10 it keeps no lease at a feeder's ping, and has its length for when it votes") {
    Fed fed;
    Message info = fed.make(MessageType::leader_info);
    info.leader = PeerId{2}, info.total = 300000;
    CHECK(fed.tell(info));
    CHECK(fed.log.epochs().lease == milliseconds(300));
    fed.step();
    fed.begin_at_once();
    Message ping = fed.make(MessageType::ping);
    ping.sequence = 1;
    CHECK(fed.tell(ping));
    CHECK_FALSE(fed.log.is_leased());
    fed.learner.pong(1, {}, 1024, fed.out);
    fed.step();
    const auto pong = std::find_if(fed.said.rbegin(), fed.said.rend(), [](const Said& one) {
        return one.message.type == MessageType::pong;
    });
    REQUIRE(pong != fed.said.rend());
    CHECK(pong->message.phase == 0);
}

TEST_CASE("F10 a feeder that leads by now has a learner as every leader has") {
    Fed fed;
    Message info = fed.make(MessageType::leader_info);
    info.leader = PeerId{1};
    CHECK(fed.tell(info));
    CHECK(fed.learner.leader() == PeerId{1});
    CHECK_FALSE(fed.learner.is_fed());
}

TEST_CASE("F10 it takes in nothing but what is committed") {
    Fed fed;
    fed.begin();
    LogPosition last;
    const Bytes one = entry(last, Zxid{5, 1}), two = entry(last, Zxid{5, 2});
    const Bytes both = one + two;
    Message proposal = fed.make(MessageType::proposal);
    proposal.commit = Zxid{5, 1}, proposal.payload = both;
    CHECK(fed.tell(proposal));
    CHECK(fed.log.last().zxid == Zxid{5, 1});
    CHECK(fed.learner.entries_corrupt() == 1);
    proposal.commit = Zxid{5, 2};
    CHECK(fed.tell(proposal));
    CHECK(fed.log.last().zxid == Zxid{5, 2});
}

TEST_CASE("F10 it cuts nothing at its feeder's word") {
    for (const MessageType type : {MessageType::trunc, MessageType::diff, MessageType::snap}) {
        Fed fed(4);
        fed.promise();
        Message message = fed.make(type);
        message.zxid = Zxid{1, 2}, message.total = 100;
        CHECK(fed.tell(message));
        CHECK(fed.log.last().zxid == Zxid{1, 4});
        REQUIRE(fed.learner.departure() != nullptr);
        CHECK(Bytes(fed.learner.departure()) == "its feeder lacks what it has");
    }
}

TEST_CASE("it leaves a feeder that declines, in this very attempt, and says why") {
    Fed fed;
    Message message = fed.make(MessageType::declined);
    message.phase = static_cast<std::uint8_t>(Decline::full), message.epoch = 0;
    message.attempt -= 1;
    fed.tell(message);
    CHECK(fed.learner.departure() == nullptr);
    message.attempt += 1;
    CHECK(fed.learner.declined() == Decline{});
    fed.tell(message);
    REQUIRE(fed.learner.departure() != nullptr);
    CHECK(Bytes(fed.learner.departure()) == text(Decline::full));
    CHECK(fed.learner.declined() == Decline::full);
}

// -- Ensembles -----------------------------------------------------------------------------------

namespace {

SimulationOptions of(std::uint32_t voters, std::uint32_t observers,
                     const std::vector<std::uint32_t>& feeders) {
    SimulationOptions options = observers::of(voters, observers);
    for (const std::uint32_t id : feeders) options.replica.feeders.push_back(PeerId{id});
    return options;
}

struct World : observers::World {
    World(std::uint32_t voters, std::uint32_t observers, const std::vector<std::uint32_t>& feeders)
        : World(of(voters, observers, feeders)) {}
    explicit World(const SimulationOptions& all) : observers::World(all) {}
    coord::ReplicaStatus status(std::uint32_t id) { return sim.replica(id).status(); }
    // All observers learn from a follower.
    bool all_fed() {
        for (std::uint32_t id = options.voters + 1; id <= sim.size(); id++) {
            if (!serves(id) || status(id).feeder == PeerId{}) return false;
        }
        return true;
    }
    std::uint32_t feeder(std::uint32_t id) { return status(id).feeder.value; }
    std::uint64_t metric(std::uint32_t id, const std::string& name) {
        std::uint64_t value = UINT64_MAX;
        sim.replica(id).visit_metrics([&](const coord::Metric& metric) {
            if (name == metric.name) value = metric.value;
        });
        return value;
    }
};

using observers::write_some;

}  // namespace

TEST_CASE("observers hang on the follower that they prefer, and the leader knows of it") {
    World w(3, 3, {1, 2, 3});
    REQUIRE(w.comes_true([&] { return w.all_fed(); }));
    const std::uint32_t leader = w.leader(), feeder = leader == 1 ? 2 : 1;
    w.sim.run_for(seconds(1));
    for (std::uint32_t id = 4; id <= 6; id++) {
        CHECK(w.feeder(id) == feeder);
        CHECK(w.status(id).role == Role::observing);
        CHECK(w.status(id).leader == w.sim.leader());
    }
    CHECK(w.status(leader).observers == 0);
    CHECK(w.status(leader).observers_fed == 3);
    CHECK(w.status(feeder).observers == 3);
    CHECK(w.metric(leader, "coord_observers_at_feeders") == 3);
    CHECK(w.metric(leader, "coord_observers_fed") == 0);
    CHECK(w.metric(feeder, "coord_observers_fed") == 3);
    CHECK(w.metric(feeder, "zk_learners") == 0);
    const Bytes told = w.sim.replica(leader).describe();
    CHECK(told.find("0 observers, and 3 at followers") != Bytes::npos);
    CHECK(told.find("feeds 4 5 6\n") != Bytes::npos);
    CHECK(w.sim.replica(leader).state_json().find("\"feeds\":[4,5,6]") != Bytes::npos);
    CHECK(w.sim.replica(feeder).describe().find("feeds    3 observers") != Bytes::npos);
    CHECK(w.sim.replica(4).describe().find(", fed by " + std::to_string(feeder)) != Bytes::npos);
    CHECK(w.sim.replica(4).state_json().find("\"feeder\":" + std::to_string(feeder)) !=
          Bytes::npos);
    // When they are gone the leader hears of that, too.
    for (std::uint32_t id = 4; id <= 6; id++) w.sim.crash(id);
    w.sim.run_for(seconds(3));
    CHECK(w.status(leader).observers_fed == 0);
    CHECK(w.status(feeder).observers == 0);
}

TEST_CASE("who names no feeders, or such as are not there, hangs on the leader") {
    World w(3, 2, {77, 4, 5});
    w.sim.run_for(seconds(20));
    CHECK(w.all_serve());
    CHECK(w.status(w.leader()).observers == 2);
    CHECK(w.feeder(4) == 0);
    CHECK(w.feeder(5) == 0);
    for (std::uint32_t id = 1; id <= 5; id++) CHECK(w.metric(id, "coord_feeds_declined") == 0);
    write_some(w.open(4), 5);
    w.are_alike();
    SimulationOptions options = of(1, 0, {0});
    Simulation refused(options);
    CHECK(Bytes(refused.replica(1).status().reason) == "options: a feeder's id is 0");
}

TEST_CASE("a session at an observer that is fed does all that sessions do") {
    World w(3, 2, {1, 2});
    REQUIRE(w.comes_true([&] { return w.all_fed(); }));
    const Sync zk = w.open(4), other = w.open(w.leader());
    REQUIRE(zk.create("/a", "1"));
    REQUIRE(zk.create("/a/mine", "", CreateMode::ephemeral));
    CHECK(zk.create("/a", "1").error() == Errc::node_exists);
    std::vector<std::string> events;
    zk.session().exists("/b",
                        [&](const coord::WatchEvent& event) { events.push_back(event.path); }, {});
    REQUIRE(other.create("/b", "2"));
    REQUIRE(zk.sync());
    CHECK(zk.get("/b")->bytes == "2");
    CHECK(events == std::vector<std::string>{"/b"});
    CHECK(zk.multi({coord::Op::set("/a", "3"), coord::Op::remove("/b")}).error == Errc::ok);
    CHECK(w.metric(w.feeder(4), "coord_requests_relayed") >= 4);
    REQUIRE(zk.close());
    REQUIRE(other.sync());
    CHECK_FALSE(other.exists("/a/mine"));
    w.are_alike();
}

TEST_CASE("a sync at an observer that is fed, and a newest read, see every write that had ended") {
    World w(3, 2, {1, 2});
    REQUIRE(w.comes_true([&] { return w.all_fed(); }));
    const Sync here = w.open(4), there = w.open(5), at_leader = w.open(w.leader());
    REQUIRE(at_leader.create("/x", "0"));
    for (int i = 1; i <= 30; i++) {
        const Bytes value = std::to_string(i);
        REQUIRE((i % 2 == 0 ? there : at_leader).set("/x", value));
        if (i % 3 == 0) REQUIRE(here.sync());
        Bytes read;
        bool done = false;
        coord::Request request;
        request.kind = coord::Request::Kind::get, request.path = "/x";
        if (i % 3 != 0) request.least = coord::newest;
        request.done = coord::OnData([&](const coord::Result<coord::Data>& data) {
            REQUIRE(data);
            read = data->bytes, done = true;
        });
        w.sim.replica(4).submit(here.session().id(), std::move(request));
        REQUIRE(w.comes_true([&] { return done; }));
        CHECK(read == value);
    }
}

TEST_CASE("P10 sessions at an observer that is fed live, and know until when") {
    World w(3, 2, {1, 2});
    REQUIRE(w.comes_true([&] { return w.all_fed(); }));
    const Sync zk = w.open(4, seconds(2)), watching = w.open(w.leader(), seconds(60));
    REQUIRE(zk.create("/mine", "", CreateMode::ephemeral));
    for (int i = 0; i < 30; i++) {
        w.sim.run_for(seconds(1));
        CHECK(zk.session().certain_until() > w.sim.clock(4) + seconds(1));
    }
    CHECK(w.sees(w.leader(), "/mine"));
    CHECK(w.status(w.leader()).observers == 0);
    w.sim.crash(4);  // and what is silent ends
    REQUIRE(w.comes_true([&] { return !w.sees(w.leader(), "/mine"); }, seconds(4)));
}

TEST_CASE("P10 a feeder that is cut off keeps nobody in the belief that it is not") {
    World w(3, 1, {1, 2});
    REQUIRE(w.comes_true([&] { return w.all_fed(); }));
    const std::uint32_t leader = w.leader(), feeder = w.feeder(4);
    const Sync zk = w.open(4, seconds(3));
    REQUIRE(zk.create("/mine", "x", CreateMode::ephemeral));
    w.sim.run_for(seconds(1));
    const Time certain = w.sim.when(4, zk.session().certain_until());
    CHECK(certain > w.sim.now() + seconds(1));
    for (std::uint32_t id = 1; id <= 3; id++) {  // the two hear each other, and nobody else
        if (id != feeder) w.sim.partition({id}, {feeder, 4});
    }
    w.sim.run_for(milliseconds(1500));
    CHECK(zk.session().state() == SessionState::suspended);
    CHECK_FALSE(w.serves(4));
    CHECK(w.sim.when(4, zk.session().certain_until()) <= certain + milliseconds(500));
    CHECK(w.sees(leader, "/mine"));
    REQUIRE(w.comes_true([&] { return !w.sees(leader, "/mine"); }));
    CHECK(w.sim.now() >= w.sim.when(4, zk.session().certain_until()));
    w.sim.heal();
    REQUIRE(w.comes_true([&] { return zk.session().state() == SessionState::expired; }));
    w.are_alike();
}

TEST_CASE("R20 a feeder that is gone is left in time, and gone back to when it is there again") {
    World w(5, 2, {1, 2, 3});
    REQUIRE(w.comes_true([&] { return w.all_fed(); }));
    const std::uint32_t first = w.feeder(6);
    const Sync zk = w.open(6, seconds(20));
    REQUIRE(zk.create("/mine", "", CreateMode::ephemeral));
    w.sim.crash(first);
    REQUIRE(w.comes_true([&] { return w.all_fed() && w.feeder(6) != first; }, seconds(3)));
    CHECK(w.feeder(6) == w.feeder(7));
    write_some(zk, 5);
    w.sim.restart(first);
    REQUIRE(w.comes_true([&] { return w.feeder(6) == first; }, seconds(30)));
    REQUIRE(w.comes_true([&] { return w.all_fed(); }));
    write_some(zk, 5);
    w.are_alike();
    CHECK(w.sees(w.leader(), "/mine"));
}

TEST_CASE("R20 a feeder that has begun to lead, or follows another one, still has its observers") {
    World w(3, 2, {1, 2, 3});
    REQUIRE(w.comes_true([&] { return w.all_fed(); }));
    const Sync zk = w.open(4, seconds(30));
    for (int round = 0; round < 6; round++) {
        const std::uint32_t old = w.leader();
        if (round % 2 == 0) {
            w.sim.crash(old);
            write_some(zk, 3);
            w.sim.restart(old);
        } else {
            REQUIRE(w.sim.replica(old).hand_over(PeerId{w.feeder(4)}) == Errc::ok);
            REQUIRE(w.comes_true([&] { return w.leader() != old && w.leader() != 0; }));
            write_some(zk, 3);
        }
        REQUIRE(w.comes_true([&] { return w.all_serve() && w.all_fed(); }, seconds(60)));
        CHECK(w.feeder(4) != w.leader());
    }
    w.are_alike();
}

TEST_CASE("R20 a feeder takes on so many; who is one too many hangs on another, or the leader") {
    SimulationOptions options = of(3, 5, {1, 2, 3});
    options.replica.limits.observers_max = 2;
    World w(options);
    w.sim.run_for(seconds(5));
    CHECK(w.all_serve());
    std::size_t sum = 0;
    for (std::uint32_t id = 1; id <= 3; id++) {
        CHECK(w.status(id).observers <= 2);
        sum += w.status(id).observers;
    }
    CHECK(sum == 5);
    CHECK(w.sim.replica(w.leader()).leader_counters().feeds_declined == 0);
    write_some(w.open(8), 5);
    w.sim.run_for(seconds(60));  // who prefers one that is full asks it ever more rarely
    std::uint64_t declined = 0;
    for (std::uint32_t id = 1; id <= 3; id++) declined += w.metric(id, "coord_feeds_declined");
    CHECK(declined >= 4);
    CHECK(declined <= 60);
    w.are_alike();
}

TEST_CASE("Z27 a feeder that has lost its storage feeds nobody who has more, and then all again") {
    World w(3, 2, {1, 2, 3});
    REQUIRE(w.comes_true([&] { return w.all_fed(); }));
    const std::uint32_t feeder = w.feeder(4);
    const Sync zk = w.open(4, seconds(30));
    write_some(zk, 20);
    w.sim.crash(feeder);
    w.sim.storage(feeder) = coord::MemoryStorage{};
    w.sim.restart(feeder);
    write_some(zk, 5);
    REQUIRE(w.comes_true([&] { return w.all_fed() && w.feeder(4) == feeder; }, seconds(30)));
    write_some(zk, 5);
    w.are_alike();
}

TEST_CASE("an observer that has nothing, or was away for long, fetches its feeder's snapshot") {
    SimulationOptions options = of(3, 2, {1, 2});
    options.replica.snapshot_every_entries = 20;
    options.replica.log_entries_kept = 5;
    World w(options);
    REQUIRE(w.comes_true([&] { return w.all_fed(); }));
    const Sync zk = w.open(5, seconds(60));
    const std::uint64_t sent = w.sim.replica(w.leader()).leader_counters().snapshots_sent;
    w.sim.crash(4);
    SUBCASE("it has nothing") { w.sim.storage(4) = coord::MemoryStorage{}; }
    SUBCASE("it was away") {}
    w.sim.run_for(seconds(2));
    write_some(zk, 100);
    w.sim.restart(4);
    REQUIRE(w.comes_true([&] { return w.all_fed(); }));
    w.are_alike();
    CHECK(w.sim.replica(4).counters().snapshots_installed == 1);
    CHECK(w.sim.replica(w.leader()).leader_counters().snapshots_sent == sent);
}

TEST_CASE("R20 a feeder that votes no more feeds no more; who is to vote is fed no more") {
    SimulationOptions options = of(4, 2, {1, 2, 3, 4});
    options.replica.super_digest = coord::digest_id("super:secret");
    World w(options);
    REQUIRE(w.comes_true([&] { return w.all_fed(); }));
    const std::uint32_t feeder = w.feeder(5);
    const Sync zk = w.open(w.leader(), seconds(60));
    REQUIRE(zk.add_auth("digest", "super:secret"));
    SUBCASE("it leaves the voters") {
        coord::Reconfig leave;
        leave.leaving = {PeerId{feeder}};
        REQUIRE(zk.reconfig(leave));
        REQUIRE(w.comes_true([&] { return w.status(feeder).role == Role::observing; }));
        REQUIRE(w.comes_true([&] {
            return w.all_serve() && w.feeder(5) != feeder && w.feeder(6) != feeder;
        }));
        CHECK(w.status(feeder).observers == 0);
        w.sim.run_for(seconds(10));
        CHECK(w.feeder(5) != feeder);
    }
    SUBCASE("it joins them") {
        coord::Reconfig join;
        coord::Member member;
        member.id = PeerId{5};
        join.joining = {member};
        REQUIRE(zk.reconfig(join));
        REQUIRE(w.comes_true([&] {
            return w.serves(5) && w.status(5).role == Role::following && w.feeder(5) == 0;
        }));
        REQUIRE(w.comes_true([&] { return w.status(5).admitted; }, seconds(30)));
    }
    write_some(w.open(6), 5);
    w.are_alike();
}

TEST_CASE("a session goes from an observer that is fed to its feeder, to the leader, and back") {
    World w(3, 2, {1, 2});
    REQUIRE(w.comes_true([&] { return w.all_fed(); }));
    const Sync zk = w.open(4);
    REQUIRE(zk.create("/mine", "", CreateMode::ephemeral));
    Session before = zk.session();
    for (const std::uint32_t at : {w.feeder(4), 5u, w.leader(), 4u}) {
        const auto attached =
            Sync::attach(w.sim.replica(at), before.id(), before.password(), w.sim.pump());
        REQUIRE(attached);
        CHECK(w.comes_true([&] { return before.state() == SessionState::moved; }));
        before = *attached;
        REQUIRE(Sync(before, w.sim.pump()).set("/mine", std::to_string(at)));
    }
    w.are_alike();
    CHECK(w.sees(1, "/mine"));
}

TEST_CASE("a hundred hang on a follower, and the leader sends nothing for them") {
    std::uint64_t sent[2] = {};
    for (const bool fed : {false, true}) {
        SimulationOptions options = of(3, fed ? 100 : 0, {1, 2});
        options.replica.timing.heartbeat = seconds(1);
        options.replica.timing.silence = seconds(5);
        World w(options);
        if (fed) REQUIRE(w.comes_true([&] { return w.all_fed(); }));
        const Sync zk = w.open(w.leader(), seconds(60));
        write_some(zk, 1);
        w.sim.run_for(seconds(1));
        const std::uint64_t before = w.sim.replica(w.leader()).counters().messages_sent;
        write_some(zk, 200);
        sent[fed ? 1 : 0] = w.sim.replica(w.leader()).counters().messages_sent - before;
        w.are_alike();
        if (fed) write_some(w.open(103), 1);
    }
    CHECK(sent[1] <= sent[0] + 20);
}

TEST_CASE("Z26 what is fed is durable at the feeder, however slow its disk is") {
    SimulationOptions options = of(5, 2, {1, 2, 3, 4, 5});
    options.disk.flush_min = coord::microseconds(200), options.disk.flush_max = milliseconds(20);
    World w(options);
    REQUIRE(w.comes_true([&] { return w.all_fed(); }));
    const std::uint32_t feeder = w.feeder(6);
    const Sync zk = w.open(w.leader(), seconds(30));
    for (int i = 0; i < 40; i++) {
        if (i % 10 == 0) w.sim.stall(feeder, milliseconds(100));
        write_some(zk, 1);
        CHECK(w.status(6).last <= w.status(feeder).durable);
    }
    w.are_alike();
}

TEST_CASE("what is lost, late and doubled on the way through a feeder is made good") {
    SimulationOptions options = of(3, 3, {1, 2, 3});
    options.network.loss_permille = 100, options.network.repeat_permille = 100;
    World w(options);
    const Sync zk = w.open(4, seconds(30)), other = w.open(6, seconds(30));
    for (int i = 0; i < 30; i++) {
        write_some(zk, 2);
        REQUIRE(other.sync());
        write_some(other, 1);
    }
    w.are_alike();
    std::uint64_t relayed = 0;
    for (std::uint32_t id = 1; id <= 3; id++) relayed += w.metric(id, "coord_requests_relayed");
    CHECK(relayed >= 80);
}

// -- Schedules -----------------------------------------------------------------------------------

namespace {

// Replicas on a net of the test's own. A turn is a millisecond: what has come is received, then
// each is polled. The test says of each message how many turns it takes.
struct Wire {
    static constexpr int lost = -1, held_back = -2;
    struct Packet {
        std::uint32_t from = 0, to = 0;
        Bytes bytes;
    };
    class Port final : public coord::Transport {
    public:
        Port(Wire& wire, std::uint32_t self) : wire_(wire), self_(self) {}
        void send(PeerId to, BytesView bytes) override { wire_.send(self_, to.value, bytes); }
        std::size_t message_bytes_max() const override { return 65536; }

    private:
        Wire& wire_;
        std::uint32_t self_;
    };
    class Disk final : public support::Forwarding {
    public:
        explicit Disk(coord::MemoryStorage& inner) : Forwarding(inner) {}
        Errc read_snapshot(coord::Sequence snapshot, std::uint64_t offset, std::size_t size,
                           Bytes& out) override {
            if (is_unreadable) return Errc::storage_failed;
            return inner_.read_snapshot(snapshot, offset, size, out);
        }
        bool is_unreadable = false;
    };

    std::uint32_t voters;
    coord::ReplicaOptions options;
    std::int64_t ms = 1000;
    std::multimap<std::int64_t, Packet> on_its_way;
    std::vector<Packet> held;
    std::function<int(std::uint32_t, std::uint32_t, MessageType)> takes;
    std::map<std::uint32_t, std::vector<PeerId>> feeders;
    std::map<std::uint32_t, coord::MemoryStorage> storages;
    std::map<std::uint32_t, std::unique_ptr<Disk>> disks;
    std::map<std::uint32_t, std::unique_ptr<Port>> ports;
    std::map<std::uint32_t, std::unique_ptr<coord::Replica>> replicas;

    explicit Wire(std::uint32_t count) : voters(count) {
        options.voters.clear();
        options.ensemble = 9;
        for (std::uint32_t id = 1; id <= voters; id++) options.voters.push_back(PeerId{id});
        for (std::uint32_t id = 1; id <= voters; id++) start(id, 100 + id);
        REQUIRE(comes_true([&] { return leader() != 0 && all_serve(); }));
    }
    void send(std::uint32_t from, std::uint32_t to, BytesView bytes) {
        Message message;
        REQUIRE(coord::decode_message(bytes, message) == Errc::ok);
        const int turns = takes ? takes(from, to, message.type) : 1;
        if (turns == held_back) held.push_back({from, to, Bytes(bytes)});
        if (turns >= 0) on_its_way.emplace(ms + turns, Packet{from, to, Bytes(bytes)});
    }
    void start(std::uint32_t id, std::uint64_t entropy) {
        if (disks[id] == nullptr) disks[id] = std::make_unique<Disk>(storages[id]);
        if (ports[id] == nullptr) ports[id] = std::make_unique<Port>(*this, id);
        coord::ReplicaOptions own = options;
        own.id = PeerId{id}, own.entropy = entropy, own.feeders = feeders[id];
        replicas[id] = std::make_unique<coord::Replica>(own, *disks[id], *ports[id]);
    }
    void stop(std::uint32_t id) { replicas.erase(id); }
    void receive(const Packet& packet) {
        const auto found = replicas.find(packet.to);
        if (found != replicas.end()) found->second->receive(PeerId{packet.from}, packet.bytes);
    }
    void run(int turns = 1) {
        for (int i = 0; i < turns; i++) {
            ms += 1;
            while (!on_its_way.empty() && on_its_way.begin()->first <= ms) {
                const Packet packet = on_its_way.begin()->second;
                on_its_way.erase(on_its_way.begin());
                receive(packet);
            }
            for (auto& each : replicas) each.second->poll(now());
        }
    }
    template <class Condition>
    bool comes_true(Condition&& condition, int turns = 20000) {
        for (int i = 0; i < turns && !condition(); i++) run();
        return condition();
    }
    Time now() const { return Time{} + milliseconds(ms); }
    coord::ReplicaStatus status(std::uint32_t id) { return replicas.at(id)->status(); }
    std::uint32_t leader() {
        std::uint32_t found = 0;
        for (auto& each : replicas) {
            const coord::ReplicaStatus own = each.second->status();
            if (own.role == Role::leading && own.serving) found = each.first;
        }
        return found;
    }
    bool all_serve() {
        bool all = true;
        for (auto& each : replicas) all = all && each.second->status().serving;
        return all;
    }
    std::uint32_t follower() { return leader() == 1 ? 2 : 1; }
    bool is_fed_by(std::uint32_t id, std::uint32_t feeder) {
        return status(id).serving && status(id).feeder == PeerId{feeder};
    }
    coord::SessionId open(std::uint32_t at, coord::Duration timeout) {
        coord::SessionId id;
        coord::SessionOptions session;
        session.timeout = timeout;
        replicas.at(at)->open_session(session, [&](const coord::Result<coord::SessionId>& told) {
            REQUIRE(told);
            id = *told;
        });
        REQUIRE(comes_true([&] { return id != coord::SessionId{}; }));
        return id;
    }
    void write(std::uint32_t at, coord::SessionId session, const Bytes& data, bool creates) {
        bool done = false;
        coord::Request request;
        request.kind = creates ? coord::Request::Kind::create : coord::Request::Kind::set;
        request.path = "/x", request.data = data;
        if (creates) {
            request.done = coord::OnCreated(
                [&](const coord::Result<coord::Created>& told) { done = bool(told); });
        } else {
            request.done =
                coord::OnStat([&](const coord::Result<coord::Stat>& told) { done = bool(told); });
        }
        replicas.at(at)->submit(session, std::move(request));
        REQUIRE(comes_true([&] { return done; }));
    }
    // Of the newest state.
    void read(std::uint32_t at, coord::SessionId session, Bytes& into) {
        coord::Request request;
        request.kind = coord::Request::Kind::get, request.path = "/x";
        request.least = coord::newest;
        request.done = coord::OnData([&into](const coord::Result<coord::Data>& told) {
            into = told ? told->bytes : Bytes("none");
        });
        replicas.at(at)->submit(session, std::move(request));
    }
};

}  // namespace

TEST_CASE("Z26 P6 no read is older for an answer to a life that its feeder had before") {
    for (std::uint64_t entropy = 1001; entropy <= 1004; entropy++) {
        CAPTURE(entropy);
        Wire w(3);
        const std::uint32_t leader = w.leader(), feeder = w.follower();
        w.feeders[4] = {PeerId{feeder}};
        w.start(4, 777);
        REQUIRE(w.comes_true([&] { return w.is_fed_by(4, feeder); }));
        const coord::SessionId there = w.open(leader, seconds(60)), here = w.open(4, seconds(60));
        w.write(leader, there, "old", true);
        w.run(200);
        Bytes read, again;
        w.takes = [&](std::uint32_t from, std::uint32_t to, MessageType type) {
            const bool is_it = from == leader && to == feeder && type == MessageType::synced;
            return is_it ? Wire::held_back : 1;
        };
        w.read(4, here, read);
        w.run(20);
        REQUIRE(w.held.size() >= 1);
        w.takes = nullptr;
        w.stop(feeder);
        w.run(50);
        w.start(feeder, entropy);
        REQUIRE(w.comes_true([&] { return !w.is_fed_by(4, feeder); }));
        REQUIRE(w.comes_true([&] { return w.is_fed_by(4, feeder) && !read.empty(); }));
        w.run(1000);
        REQUIRE(w.is_fed_by(4, feeder));
        // What the leader says takes long now, so that the feeder has heard of neither.
        w.takes = [&](std::uint32_t from, std::uint32_t to, MessageType) {
            return from == leader && to == feeder ? 40 : 1;
        };
        w.run(200);
        w.write(leader, there, "new", false);
        w.read(4, here, again);
        w.run(3);
        w.receive(w.held.front());
        REQUIRE(w.comes_true([&] { return !again.empty(); }));
        CHECK(again == "new");
    }
}

TEST_CASE("Z26 P10 an observer that answers late keeps no other one from what is certain") {
    Wire w(3);
    const std::uint32_t feeder = w.follower();
    w.feeders[4] = w.feeders[5] = {PeerId{feeder}};
    w.takes = [](std::uint32_t from, std::uint32_t to, MessageType) {
        return from == 5 || to == 5 ? 15 : 1;
    };
    w.start(4, 104), w.start(5, 105);
    REQUIRE(w.comes_true([&] { return w.is_fed_by(4, feeder) && w.is_fed_by(5, feeder); }));
    const coord::SessionId prompt = w.open(4, seconds(2)), late = w.open(5, seconds(2));
    w.run(1000);
    for (int i = 0; i < 60; i++) {
        w.run(97);
        CHECK(w.replicas.at(4)->certain_until(prompt) > w.now() + seconds(1));
        CHECK(w.replicas.at(5)->certain_until(late) > w.now() + seconds(1));
    }
}

TEST_CASE("P10 a feeder tells its leader of all sessions in few messages, and with one number") {
    Wire w(3);
    const std::uint32_t leader = w.leader(), feeder = w.follower();
    for (std::uint32_t id = 4; id <= 13; id++) w.feeders[id] = {PeerId{feeder}};
    std::size_t pongs = 0;
    w.takes = [&](std::uint32_t from, std::uint32_t to, MessageType type) {
        pongs += from == feeder && to == leader && type == MessageType::pong ? 1u : 0u;
        const std::uint32_t highest = (std::max)(from, to);  // each at another distance
        return highest > 3 ? static_cast<int>(highest) : 1;
    };
    for (std::uint32_t id = 4; id <= 13; id++) w.start(id, 100 + id);
    for (std::uint32_t id = 4; id <= 13; id++) {
        REQUIRE(w.comes_true([&] { return w.is_fed_by(id, feeder); }));
        (void)w.open(id, seconds(5));
    }
    w.run(1000);
    pongs = 0;
    w.run(10000);
    CHECK(pongs >= 100);
    CHECK(pongs <= 100 * 5);  // to a ping, and each quarter of a heartbeat
}

TEST_CASE("F10 P10 a ping of a feeder's life before, coming late, takes nobody's certainty") {
    Wire w(3);
    const std::uint32_t feeder = w.follower();
    w.feeders[4] = {PeerId{feeder}};
    w.start(4, 777);
    REQUIRE(w.comes_true([&] { return w.is_fed_by(4, feeder); }));
    w.run(30000);  // so many pings
    w.takes = [&](std::uint32_t from, std::uint32_t to, MessageType type) {
        return from == feeder && to == 4 && type == MessageType::ping ? Wire::held_back : 1;
    };
    w.run(250);
    REQUIRE(w.held.size() >= 1);
    w.takes = nullptr;
    w.stop(feeder);
    w.run(50);
    w.start(feeder, 1001);
    REQUIRE(w.comes_true([&] { return !w.is_fed_by(4, feeder); }));
    REQUIRE(w.comes_true([&] { return w.is_fed_by(4, feeder); }));
    const coord::SessionId session = w.open(4, seconds(4));
    w.run(1000);
    w.receive(w.held.back());
    for (int i = 0; i < 10; i++) {
        w.run(1000);
        CHECK(w.is_fed_by(4, feeder));
        CHECK(w.replicas.at(4)->session_state(session) == SessionState::connected);
        CHECK(w.replicas.at(4)->certain_until(session) > w.now() + seconds(3));
    }
}

TEST_CASE("F10 P10 who goes on with another life of its feeder counts that one's pings") {
    Wire w(3);
    const std::uint32_t feeder = w.follower();
    w.feeders[4] = {PeerId{feeder}};
    const auto hold_next = [&](MessageType late) {
        const std::size_t held = w.held.size();
        w.takes = [&w, late, held](std::uint32_t from, std::uint32_t, MessageType type) {
            return from == 4 && type == late && w.held.size() == held ? Wire::held_back : 1;
        };
    };
    hold_next(MessageType::follower_info);
    w.start(4, 777);
    REQUIRE(w.comes_true([&] { return w.is_fed_by(4, feeder); }));
    const coord::SessionId session = w.open(4, seconds(4));
    w.run(30000);  // so many pings
    hold_next(MessageType::pong);
    w.run(150);
    REQUIRE(w.held.size() == 2);
    const auto looked = [&] { return w.replicas.at(4)->counters().elections; };
    const std::uint64_t before = looked();
    w.stop(feeder);
    w.run(5);
    w.start(feeder, 1001);
    REQUIRE(w.comes_true([&] { return w.status(feeder).serving; }));
    // What it has said long ago, and lately: it is taken on, and begins anew in the same attempt.
    for (const Wire::Packet& late : w.held) w.receive(late);
    for (int i = 0; i < 10; i++) {
        w.run(1000);
        CHECK(w.is_fed_by(4, feeder));
        CHECK(w.replicas.at(4)->session_state(session) == SessionState::connected);
        CHECK(w.replicas.at(4)->certain_until(session) > w.now() + seconds(3));
    }
    CHECK(looked() == before);  // it has not left it meanwhile
}

TEST_CASE("a leader forgets who hangs on a follower that says so no more") {
    Wire w(3);
    const std::uint32_t leader = w.leader(), feeder = w.follower();
    w.feeders[4] = {PeerId{feeder}};
    w.start(4, 777);
    REQUIRE(w.comes_true([&] { return w.is_fed_by(4, feeder); }));
    REQUIRE(w.comes_true([&] { return w.status(leader).observers_fed == 1; }));
    w.run(3000);
    CHECK(w.status(leader).observers_fed == 1);
    w.takes = [](std::uint32_t, std::uint32_t, MessageType type) {
        return type == MessageType::feeds ? Wire::lost : 1;
    };
    w.stop(4);
    REQUIRE(w.comes_true([&] { return w.status(feeder).observers == 0; }));
    w.run(1000);
    w.takes = nullptr;
    w.run(1000);
    CHECK(w.status(leader).observers_fed == 0);
    CHECK(w.replicas.at(leader)->describe().find("feeds 4") == Bytes::npos);
}

TEST_CASE("R20 who has lost all feeders asks each once, and then the leader") {
    World w(9, 1, {1, 2, 3, 4, 5, 6, 7, 8, 9});
    REQUIRE(w.comes_true([&] { return w.all_fed(); }));
    const std::uint32_t leader = w.leader();
    for (std::uint32_t id = 1; id <= 9; id++) {
        if (id != leader) w.sim.partition({id}, {10});
    }
    REQUIRE(w.comes_true([&] { return !w.serves(10); }, seconds(2)));
    // Eight that are silent, and an election before each.
    CHECK(w.comes_true([&] { return w.serves(10) && w.feeder(10) == 0; }, seconds(8)));
}

TEST_CASE("R20 who does not serve yet names its leader to voters, and to nobody else") {
    Wire w(3);
    const std::uint32_t leader = w.leader(), feeder = w.follower();
    w.stop(feeder);
    w.takes = [&](std::uint32_t, std::uint32_t to, MessageType type) {
        return to == feeder && type == MessageType::up_to_date ? Wire::lost : 1;
    };
    w.start(feeder, 1001);
    REQUIRE(w.comes_true([&] { return w.status(feeder).leader == PeerId{leader}; }));
    w.run(200);
    REQUIRE_FALSE(w.status(feeder).serving);
    const std::uint32_t voter = 6 - leader - feeder;
    const auto told = [&](std::uint32_t asking) {
        w.takes = [&](std::uint32_t from, std::uint32_t to, MessageType type) {
            if (to == feeder && type == MessageType::up_to_date) return Wire::lost;
            const bool is_answer = from == feeder && type == MessageType::notification;
            return is_answer && to == asking ? Wire::held_back : 1;
        };
        coord::Outbox out{PeerId{asking}, 9, 5000 + asking};
        Message message;
        message.type = MessageType::notification, message.sequence = UINT64_MAX;
        message.phase = static_cast<std::uint8_t>(Role::looking);
        out.send(PeerId{feeder}, message);
        w.held.clear();
        out.drain([&](PeerId, BytesView bytes) { w.receive({asking, feeder, Bytes(bytes)}); });
        w.run(3);
        REQUIRE(w.held.size() == 1);
        REQUIRE(coord::decode_message(w.held[0].bytes, message) == Errc::ok);
        return message.leader;
    };
    CHECK(told(9) == PeerId{});
    CHECK(told(voter) == PeerId{leader});
    w.takes = nullptr;
    REQUIRE(w.comes_true([&] { return w.status(feeder).serving; }));
}

TEST_CASE("F10 a voter that asks to be fed is told that it is one, and asks the leader") {
    Wire w(3);
    const std::uint32_t feeder = w.follower(), voter = 6 - w.leader() - feeder;
    coord::Outbox out{PeerId{voter}, 9, 5000};
    Message message;
    message.type = MessageType::follower_info, message.phase = 7, message.attempt = 12;
    out.send(PeerId{feeder}, message);
    std::vector<MessageType> said;
    w.takes = [&](std::uint32_t from, std::uint32_t to, MessageType type) {
        if (from == feeder && to == voter) said.push_back(type);
        return Wire::lost;
    };
    out.drain([&](PeerId, BytesView bytes) { w.receive({voter, feeder, Bytes(bytes)}); });
    w.run(2);
    CHECK(said == std::vector<MessageType>{MessageType::declined});
    CHECK(w.status(feeder).observers == 0);
}

TEST_CASE("R20 F10 who is declined asks the next feeder; if it is for that it votes, the leader") {
    Wire w(3);
    const std::uint32_t leader = w.leader(), first = w.follower(), second = 6 - leader - first;
    w.feeders[4] = {PeerId{first}, PeerId{second}};
    w.takes = [&](std::uint32_t from, std::uint32_t to, MessageType) {
        return from == 4 && to == first ? Wire::held_back : 1;
    };
    w.start(4, 777);
    REQUIRE(w.comes_true([&] { return w.status(4).feeder == PeerId{first}; }));
    w.held.clear();
    REQUIRE(w.comes_true([&] { return !w.held.empty(); }));
    Message message;
    REQUIRE(coord::decode_message(w.held[0].bytes, message) == Errc::ok);
    REQUIRE(message.type == MessageType::follower_info);
    coord::Outbox out{PeerId{first}, 9, 5000};
    Message declined;
    declined.type = MessageType::declined, declined.attempt = message.attempt;
    const auto decline = [&](Decline why) {
        declined.phase = static_cast<std::uint8_t>(why);
        out.send(PeerId{4}, declined);
        out.drain([&](PeerId, BytesView bytes) { w.receive({first, 4, Bytes(bytes)}); });
    };
    SUBCASE("it votes") {
        decline(Decline::votes);
        REQUIRE(w.comes_true([&] { return w.status(4).serving; }, 400));
        CHECK(w.status(4).feeder == PeerId{});
        w.takes = nullptr;
        CHECK(w.comes_true([&] { return w.is_fed_by(4, first); }));  // it was of long ago
    }
    SUBCASE("it is one too many; and for the next one it need not hear the leader") {
        w.takes = [&](std::uint32_t from, std::uint32_t to, MessageType) {
            return (from == 4 && to == leader) || (from == leader && to == 4) ? Wire::lost : 1;
        };
        decline(Decline::full);
        CHECK(w.comes_true([&] { return w.is_fed_by(4, second); }, 2000));
    }
}

TEST_CASE("a feeder whose storage fails as it is asked for its snapshot fails, as a leader does") {
    Wire w(3);
    const std::uint32_t leader = w.leader(), feeder = w.follower();
    w.options.snapshot_every_entries = 20, w.options.log_entries_kept = 2;
    for (std::uint32_t id = 1; id <= 3; id++) {
        w.stop(id), w.start(id, 200 + id);
        REQUIRE(w.comes_true([&] { return w.leader() != 0 && w.all_serve(); }));
    }
    const std::uint32_t other = w.leader() == feeder ? leader : feeder;
    const coord::SessionId session = w.open(w.leader(), seconds(60));
    w.write(w.leader(), session, "0", true);
    for (int i = 0; i < 50; i++) w.write(w.leader(), session, std::to_string(i), false);
    w.run(1000);
    REQUIRE(w.status(other).role == Role::following);
    w.disks.at(other)->is_unreadable = true;
    w.feeders[4] = {PeerId{other}};
    w.start(4, 777);
    REQUIRE(w.comes_true([&] { return w.status(other).role == Role::failed; }, 3000));
    CHECK(Bytes(w.status(other).reason) == "the storage failed");
    CHECK(w.comes_true([&] { return w.status(4).serving; }));
}

TEST_CASE("R20 who finds its feeder leading hangs on it, and goes on to one that follows") {
    Wire w(3);
    const std::uint32_t old = w.leader(), next = old == 3 ? 2 : 3, other = 6 - old - next;
    w.feeders[4] = {PeerId{next}, PeerId{other}};
    w.takes = [&](std::uint32_t from, std::uint32_t to, MessageType) {
        return from == 4 && to == next ? Wire::lost : 1;
    };
    w.start(4, 777);
    REQUIRE(w.comes_true([&] { return w.status(4).role == Role::observing; }));
    REQUIRE(w.status(4).feeder == PeerId{next});
    w.stop(old);
    w.replicas.at(next)->forget(PeerId{old}), w.replicas.at(other)->forget(PeerId{old});
    REQUIRE(w.comes_true([&] { return w.leader() == next; }, 400));
    REQUIRE(w.status(4).feeder == PeerId{next});
    w.takes = nullptr;
    REQUIRE(w.comes_true([&] { return w.status(4).serving; }, 400));
    CHECK(w.status(4).feeder == PeerId{});
    CHECK(w.status(4).leader == PeerId{next});
    CHECK(w.comes_true([&] { return w.is_fed_by(4, other); }, 10000));
}

TEST_CASE("an observer that does not hear the leader has all that it needs by its feeder") {
    World w(3, 1, {1, 2});
    REQUIRE(w.comes_true([&] { return w.all_fed(); }));
    w.sim.partition({w.leader()}, {4});
    const Sync here = w.open(4, seconds(2)), there = w.open(w.leader());
    REQUIRE(there.create("/x", "0"));
    for (int i = 1; i <= 20; i++) {
        w.sim.run_for(milliseconds(300));
        const Bytes value = std::to_string(i);
        REQUIRE((i % 2 == 0 ? here : there).set("/x", value));
        REQUIRE(here.sync());
        CHECK(here.get("/x")->bytes == value);
        CHECK(here.session().certain_until() > w.sim.clock(4) + seconds(1));
    }
    CHECK(w.feeder(4) != 0);
    w.are_alike();
}

}  // TEST_SUITE
