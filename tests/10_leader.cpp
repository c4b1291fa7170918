// Chapter 10: a leader driven message by message. It is voter 1 of 3; what 2 and 3 say is made by
// hand, and what it sends to them is decoded from the outbox.

#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "coord.hpp"
#include "support.hpp"

namespace {

using coord::Bytes;
using coord::BytesView;
using coord::Errc;
using coord::Leader;
using coord::Message;
using coord::MessageType;
using coord::milliseconds;
using coord::OpCode;
using coord::PeerId;
using coord::SessionId;
using coord::Time;
using coord::Txn;
using coord::Zxid;
using Phase = coord::Leader::Phase;

struct Quiet final : coord::ChangeSink {
    void on_created(BytesView, Zxid, BytesView) override {}
    void on_deleted(BytesView, Zxid, BytesView) override {}
    void on_data_changed(BytesView, Zxid, BytesView) override {}
    void on_children_changed(BytesView, Zxid, BytesView) override {}
};

struct Said {
    Message message;
    Bytes payload;
};

class Narrow final : public support::Forwarding {
public:
    using Forwarding::Forwarding;
    Errc append(BytesView record) override {
        return is_full ? Errc::storage_full : Forwarding::append(record);
    }
    bool is_full = false;
};

struct Rig {
    coord::MemoryStorage disk;
    Narrow narrow{disk};
    coord::Log log{narrow};
    coord::Voters voters{{PeerId{1}, PeerId{2}, PeerId{3}}};
    coord::Limits limits;
    coord::Timing timing;
    Leader leader{PeerId{1}, voters, timing, log, limits, 1024};
    coord::Machine machine{limits, 1};
    coord::Outbox out{PeerId{1}, 7, 11};
    Quiet quiet;
    Time now{1000000000};
    std::deque<Said> said;

    explicit Rig(std::uint64_t entries = 0, std::uint32_t epoch = 1,
                 const coord::Limits& own_limits = {})
        : limits(own_limits) {
        REQUIRE(log.open() == Errc::ok);
        if (entries > 0) {
            REQUIRE(log.accept_epoch(epoch, PeerId{1}) == Errc::ok);
            REQUIRE(log.set_current_epoch(epoch) == Errc::ok);
        }
        for (std::uint64_t i = 1; i <= entries; i++) append(Zxid{epoch, i});
        flush();
        leader.start(now);
    }
    void append(Zxid zxid) {
        Txn txn;
        txn.zxid = zxid, txn.previous = log.last().zxid, txn.previous_crc = log.last().crc;
        txn.session = SessionId{99}, txn.op = OpCode::remove;
        Bytes record;
        coord::encode_entry(txn, record);
        REQUIRE(log.append(record, txn) == Errc::ok);
    }
    void flush() {
        REQUIRE(log.flush() == Errc::ok);
        REQUIRE(log.refresh_durable() == Errc::ok);
    }
    void apply() {
        const Zxid target = (std::min)(leader.committed(), log.durable_last());
        while (machine.applied() < target) {
            Txn txn;
            REQUIRE(coord::decode_entry(log.entry_after(machine.applied()), txn) == Errc::ok);
            machine.apply(txn, quiet);
            leader.on_applied(txn, machine);
        }
    }
    void collect() {
        out.drain([&](PeerId, BytesView bytes) {
            Said one;
            REQUIRE(coord::decode_message(bytes, one.message) == Errc::ok);
            one.payload = Bytes(one.message.payload);
            said.push_back(one);
            CHECK(bytes.size() <= 1024);
        });
    }
    // One poll, as the replica orders it.
    void step(coord::Duration passed = {}) {
        now = now + passed;
        log.set_time(now);
        leader.send(now, machine, out);
        flush();
        leader.advance(now, out);
        apply();
        leader.announce(machine, out);
        collect();
        CHECK(leader.error() == Errc::ok);
        log.audit();
    }
    // What was said to a peer of one type, newest last; all that was said is then forgotten.
    std::vector<Said> take(MessageType type, std::uint32_t to = 2) {
        std::vector<Said> found;
        for (const Said& one : said) {
            if (one.message.type == type && one.message.to == PeerId{to}) found.push_back(one);
        }
        return found;
    }
    std::size_t count(MessageType type, std::uint32_t to = 2) { return take(type, to).size(); }
    void forget() { said.clear(); }
    Message from(std::uint32_t peer, MessageType type) {
        Message message;
        message.type = type, message.from = PeerId{peer}, message.to = PeerId{1};
        message.nonce = 20 + peer, message.epoch = leader.epoch();
        message.attempt = 5;
        return message;
    }
    bool tell(const Message& message) {
        const bool taken = leader.receive(now, message, out);
        collect();
        return taken;
    }
    void follower_info(std::uint32_t peer, std::uint32_t accepted = 0, PeerId promised_to = {}) {
        Message message = from(peer, MessageType::follower_info);
        message.epoch = 0, message.accepted_epoch = accepted, message.leader = promised_to;
        tell(message);
    }
    void ack_epoch(std::uint32_t peer, Zxid has, std::uint32_t crc, std::uint32_t current = 0) {
        Message message = from(peer, MessageType::ack_epoch);
        message.zxid = has, message.crc = crc, message.current_epoch = current;
        tell(message);
    }
    // Every voter is in the table, with storage 100 + id but for the leader's own; then what else
    // the log says. From here on it is asked whose storage speaks.
    using Places = coord::VoterTable::Places;
    void admit(Zxid zxid, const Places& places) {
        Txn txn;
        txn.zxid = zxid, txn.previous = log.last().zxid, txn.previous_crc = log.last().crc;
        Bytes body, record;
        coord::VoterTable::write(places, body);
        txn.op = OpCode::admit, txn.body = body;
        coord::encode_entry(txn, record);
        REQUIRE(log.append(record, txn) == Errc::ok);
    }
    Places founders() const {
        return {{PeerId{1}, disk.id()}, {PeerId{2}, 102}, {PeerId{3}, 103}};
    }
    void know(bool may_found = true) {
        flush();
        leader.stop();
        leader.set_lease(lease, lease / 1000 * 950);
        leader.know(machine, may_found);
        leader.start(now);
    }
    coord::Duration lease;
    void founded() {
        REQUIRE(log.accept_epoch(1, PeerId{1}) == Errc::ok);
        REQUIRE(log.set_current_epoch(1) == Errc::ok);
        admit(Zxid{1, 1}, founders()), admit(Zxid{1, 2}, {});
    }
    std::map<std::uint32_t, std::uint64_t> storages{{2, 102}, {3, 103}};
    std::map<std::uint32_t, std::uint64_t> lives{{2, 22}, {3, 23}};
    std::set<std::uint32_t> no_founders;
    Message speak(std::uint32_t peer, MessageType type) {
        Message message = from(peer, type);
        message.nonce = lives[peer], message.storage = storages[peer];
        message.phase = no_founders.count(peer) > 0 ? 0 : 1;
        if (type == MessageType::follower_info) message.epoch = 0;
        if (type == MessageType::ack) message.commit = message.zxid = log.last().zxid;
        if (type == MessageType::ack_epoch) {
            message.zxid = log.last().zxid, message.crc = log.last().crc;
            message.current_epoch = log.epochs().current;
            message.sequence = UINT64_MAX;
            if (phase() == Phase::promise) message.current_epoch = 0;
        }
        return message;
    }
    Phase phase() const { return leader.phase(); }
    void say(std::uint32_t peer, MessageType type) { tell(speak(peer, type)); }
    // Promises, and then has all that there is.
    void join(std::uint32_t peer) {
        say(peer, MessageType::follower_info);
        say(peer, MessageType::ack_epoch);
        say(peer, MessageType::ack);
    }
    // Voter 2 follows in epoch 2.
    void lead_two() {
        founded(), know();
        say(2, MessageType::follower_info);
        step();
        REQUIRE(phase() == Phase::promise);
        say(2, MessageType::ack_epoch);
        step();
        REQUIRE(phase() == Phase::synchronization);
        say(2, MessageType::ack);
        step();
        REQUIRE(leader.is_established());
        REQUIRE(leader.can_number(machine));
        forget();
    }
    void pass_silence() {
        for (int i = 0; i < 8; i++) {
            pong(2, leader.pings());
            if (phase() == Phase::broadcast) heard(3);
            step(timing.silence / 5);
        }
    }
    void heard(std::uint32_t peer) {
        Message message = speak(peer, MessageType::pong);
        message.sequence = leader.pings(), message.phase = 0;
        tell(message);
    }
    // Has all, durably, and the epoch current.
    void ack(std::uint32_t peer, Zxid zxid, std::uint8_t phase = 1) {
        Message message = from(peer, MessageType::ack);
        message.zxid = message.commit = zxid, message.phase = phase;
        tell(message);
    }
    void pong(std::uint32_t peer, std::uint64_t sequence) {
        Message message = from(peer, MessageType::pong);
        message.sequence = sequence, message.touch = 1, message.total = 1;
        tell(message);
    }
    void to_promise() {
        follower_info(2);
        step();
        REQUIRE(leader.phase() == Phase::promise);
    }
    void to_synchronization() {
        to_promise();
        ack_epoch(2, log.last().zxid, log.last().crc, log.durable_epochs().current);
        step();
        REQUIRE(leader.phase() == Phase::synchronization);
    }
    void to_broadcast() {
        to_synchronization();
        ack(2, log.last().zxid);
        step();
        REQUIRE(leader.is_established());
        ack(2, log.last().zxid, 2);
        REQUIRE(leader.can_number(machine));
        forget();
    }
    // 4 and above are no voters. It has nothing, and then what is sent to it.
    void observe(std::uint32_t peer = 4) {
        follower_info(peer);
        ack_epoch(peer, Zxid{}, 0);
        step();
        take_entries(peer);
    }
    // The newest entry that it was sent since, which it acknowledges. RETURNS how many there were.
    std::size_t take_entries(std::uint32_t peer = 4, bool acknowledged = true) {
        std::size_t count = 0;
        Zxid last;
        for (const Said& one : take(MessageType::proposal, peer)) {
            for (BytesView left = one.payload; !left.empty(); count++) {
                const std::uint32_t length = coord::Reader(left).u32();
                Txn txn;
                REQUIRE(coord::decode_entry(left.substr(0, length), txn) == Errc::ok);
                CHECK(txn.zxid <= one.message.commit);  // Z15
                last = txn.zxid;
                left.remove_prefix(length);
            }
        }
        forget();
        if (acknowledged && count > 0) ack(peer, last, 2);
        return count;
    }
    void number_some(SessionId id, int count) {
        for (int i = 0; i < count; i++) {
            numbered += 1;
            number(id, numbered, OpCode::create, create_body("/n" + std::to_string(numbered)));
        }
    }
    std::uint64_t numbered = 0;
    void number(SessionId session, std::uint64_t cxid, OpCode op, BytesView body,
                std::uint64_t confirmed = 0) {
        Txn request;
        request.session = session, request.cxid = cxid, request.confirmed = confirmed;
        request.op = op, request.body = body;
        leader.number(5000, machine, request);
    }
    static Bytes create_body(BytesView path, std::int32_t mode = 0, std::int64_t ttl_ms = 0) {
        Bytes body;
        coord::Writer out_body(body);
        out_body.bytes(path), out_body.bytes(""), out_body.i32(mode);
        if (ttl_ms != 0) out_body.i64(ttl_ms);
        return body;
    }
    // Numbers a create, at time 5000, and lets it commit.
    void create(SessionId session, std::uint64_t cxid, BytesView path, std::int32_t mode = 0,
                std::int64_t ttl_ms = 0) {
        number(session, cxid, OpCode::create, create_body(path, mode, ttl_ms), cxid - 1);
        settle();
        REQUIRE(machine.tree().contains(path));
    }
    void settle() {
        step();
        ack(2, log.last().zxid, 2);
        step();
    }
    // So long, with voter 2 in reach and the session touched; nothing is looked for.
    void pass(SessionId session, coord::Duration time) {
        for (const Time end = now + time; now < end;) {
            pong(2, leader.pings());
            leader.touch(session);
            step((std::min)(milliseconds(100), end - now));
        }
    }
    Txn newest() {
        Txn txn;
        const Zxid before = log.position_at_or_before(Zxid{log.last().zxid.value - 1}).zxid;
        REQUIRE(coord::decode_entry(log.entry_after(before), txn) == Errc::ok);
        return txn;
    }
    static Bytes open_body(std::uint64_t nonce, std::uint32_t timeout_ms = 1000) {
        Bytes body;
        coord::Writer out_body(body);
        out_body.u64(nonce), out_body.u32(timeout_ms), out_body.u64(1), out_body.u64(2);
        return body;
    }
    // Opens a session and lets it commit. RETURNS its id.
    SessionId open(std::uint64_t nonce, std::uint32_t timeout_ms = 1000) {
        number({}, 0, OpCode::open_session, open_body(nonce, timeout_ms));
        const SessionId id{log.last().zxid.value};
        step();
        ack(2, log.last().zxid, 2);
        step();
        REQUIRE(machine.find_session(id) != nullptr);
        return id;
    }
};

}  // namespace

TEST_SUITE("10 leader") {

TEST_CASE("discovery: it waits for a quorum's follower_info, and asks for an epoch above all") {
    Rig rig(3, 4);
    rig.step();
    CHECK(rig.leader.phase() == Phase::discovery);
    CHECK(rig.log.epochs().accepted == 4);
    rig.follower_info(3, 9, PeerId{3});
    rig.step();
    CHECK(rig.leader.phase() == Phase::promise);
    CHECK(rig.leader.epoch() == 10);
    CHECK(rig.log.epochs().accepted == 10);
    CHECK(rig.log.epochs().accepted_from == PeerId{1});
}

TEST_CASE("Z1 no leader_info before the accepted epoch is durable here") {
    Rig rig;
    rig.disk.hold_flushes();
    rig.follower_info(2);
    rig.follower_info(3);
    for (int i = 0; i < 5; i++) rig.step(milliseconds(60));
    CHECK(rig.leader.phase() == Phase::promise);
    CHECK(rig.count(MessageType::leader_info) == 0);
    CHECK(rig.count(MessageType::leader_info, 3) == 0);
    for (const Said& one : rig.said) CHECK(one.message.epoch == 0);
    rig.disk.release();
    rig.step();
    REQUIRE(rig.count(MessageType::leader_info) == 1);
    CHECK(rig.take(MessageType::leader_info)[0].message.epoch == 1);
    CHECK(rig.take(MessageType::leader_info)[0].message.attempt == 5);
}

TEST_CASE("leader_info is repeated until it is answered, and answers each follower_info") {
    Rig rig;
    rig.to_promise();
    rig.forget();
    rig.step(milliseconds(10));
    CHECK(rig.count(MessageType::leader_info) == 0);
    rig.step(rig.timing.retry());
    CHECK(rig.count(MessageType::leader_info) == 1);
    rig.follower_info(2);
    CHECK(rig.count(MessageType::leader_info) == 2);
    rig.follower_info(3);
    CHECK(rig.count(MessageType::leader_info, 3) == 1);
}

TEST_CASE("Z2 nobody gets a history before a quorum has promised") {
    Rig rig(3);
    rig.disk.hold_flushes();
    rig.follower_info(2);
    rig.step();
    rig.disk.release();
    rig.follower_info(3);
    rig.step();
    for (const MessageType type : {MessageType::diff, MessageType::trunc, MessageType::snap,
                                   MessageType::new_leader, MessageType::proposal}) {
        CHECK(rig.count(type) == 0);
    }
    rig.ack_epoch(2, rig.log.last().zxid, rig.log.last().crc, 1);
    CHECK(rig.count(MessageType::diff) == 0);
    rig.step();
    CHECK(rig.leader.phase() == Phase::synchronization);
    CHECK(rig.count(MessageType::diff) == 1);
    CHECK(rig.count(MessageType::new_leader) == 1);
    CHECK(rig.count(MessageType::diff, 3) == 0);  // it has promised nothing
}

TEST_CASE("Z2 a promise with a newer history does not count: by zxid, and by epoch") {
    for (const bool by_epoch : {false, true}) {
        Rig rig(3);
        rig.to_promise();
        rig.ack_epoch(2, by_epoch ? Zxid{1, 1} : Zxid{1, 4}, 1, by_epoch ? 2 : 1);
        rig.step();
        CHECK(rig.leader.phase() == Phase::promise);
        CHECK(rig.leader.has_met_newer());
        rig.ack_epoch(3, Zxid{1, 3}, rig.log.last().crc, 1);
        rig.step();
        CHECK(rig.leader.phase() == Phase::synchronization);
        rig.leader.stop(), rig.leader.start(rig.now);
        CHECK_FALSE(rig.leader.has_met_newer());
    }
    Rig rig(3);
    rig.to_promise();
    rig.ack_epoch(2, Zxid{1, 3}, rig.log.last().crc, 1);
    CHECK_FALSE(rig.leader.has_met_newer());  // that is as new as its own
}

TEST_CASE("a voter that has promised the epoch, or a later one, to somebody else: it gives up") {
    Rig rig;
    rig.to_promise();
    SUBCASE("a later one") { rig.follower_info(3, 2, PeerId{3}); }
    SUBCASE("the same, to another") { rig.follower_info(3, 1, PeerId{3}); }
    REQUIRE(rig.leader.resignation() != nullptr);
    CHECK(rig.leader.next_deadline(rig.now) == rig.now);
    rig.leader.stop();
    CHECK(rig.leader.phase() == Phase::idle);
    CHECK(rig.leader.next_deadline(rig.now) == coord::never);
    CHECK_FALSE(rig.tell(rig.from(2, MessageType::follower_info)));
}

TEST_CASE("the same epoch promised to this very leader is no reason to give up") {
    Rig rig;
    rig.to_promise();
    rig.follower_info(2, 1, PeerId{1});
    CHECK(rig.leader.resignation() == nullptr);
}

TEST_CASE("epochs come to an end, and it says so instead of wrapping") {
    Rig rig;
    rig.follower_info(2, Zxid::epoch_max, PeerId{2});
    rig.step();
    REQUIRE(rig.leader.resignation() != nullptr);
    CHECK(std::string(rig.leader.resignation()) == "the epochs are used up");
    CHECK(rig.log.epochs().accepted == 0);
}

TEST_CASE("synchronization: diff to who is behind, from where it is") {
    Rig rig(5);
    rig.to_promise();
    rig.ack_epoch(2, Zxid{1, 2}, rig.log.crc_at(Zxid{1, 2}), 1);
    rig.step();
    REQUIRE(rig.count(MessageType::diff) == 1);
    CHECK(rig.take(MessageType::diff)[0].message.zxid == Zxid{1, 2});
    CHECK(rig.take(MessageType::new_leader)[0].message.zxid == Zxid{1, 5});
    rig.step();
    REQUIRE(rig.count(MessageType::proposal) == 1);
    CHECK(rig.take(MessageType::proposal)[0].message.zxid == Zxid{1, 2});
    CHECK(rig.take(MessageType::proposal)[0].payload.size() == 3 * coord::entry_header_bytes);
}

TEST_CASE("synchronization: trunc to who has something else there, or more") {
    Rig rig(5);
    rig.to_promise();
    rig.ack_epoch(2, Zxid{1, 4}, 12345, 0);
    rig.step();
    REQUIRE(rig.count(MessageType::trunc) == 1);
    CHECK(rig.take(MessageType::trunc)[0].message.zxid == Zxid{1, 3});
    rig.forget();
    Message again = rig.from(2, MessageType::ack_epoch);
    again.attempt = 6, again.zxid = Zxid{1, 9}, again.crc = 1;
    rig.tell(again);
    REQUIRE(rig.count(MessageType::trunc) == 1);
    CHECK(rig.take(MessageType::trunc)[0].message.zxid == Zxid{1, 5});
    CHECK(rig.take(MessageType::trunc)[0].message.attempt == 6);
}

TEST_CASE("synchronization: a snapshot to who is behind the log, in chunks asked for by offset") {
    Rig rig(5);
    Bytes state(2500, 's');
    for (std::size_t i = 0; i < state.size(); i++) state[i] = static_cast<char>('a' + i % 26);
    rig.leader.stop();
    const coord::LogPosition taken_at{Zxid{1, 4}, rig.log.crc_at(Zxid{1, 4})};
    REQUIRE(support::take_snapshot(rig.log, taken_at, state, 1) == Errc::ok);
    rig.flush();
    rig.leader.start(rig.now);
    rig.to_promise();
    rig.ack_epoch(2, Zxid{}, 0, 0);
    rig.step();
    REQUIRE(rig.count(MessageType::snap) == 1);
    const Message snap = rig.take(MessageType::snap)[0].message;
    CHECK(snap.zxid == Zxid{1, 4});
    CHECK(snap.crc == rig.log.crc_at(Zxid{1, 4}));
    CHECK(snap.total == 2500);
    Bytes got;
    Message ask = rig.from(2, MessageType::chunk_request);
    ask.zxid = snap.zxid;
    while (got.size() < state.size()) {
        rig.forget();
        ask.offset = got.size();
        rig.tell(ask);
        rig.tell(ask);  // asked twice, told once, and again when a later ping is answered: Z22
        REQUIRE(rig.count(MessageType::chunk) == 1);
        rig.pong(2, rig.leader.pings());
        rig.tell(ask);
        CHECK(rig.count(MessageType::chunk) == 1);
        rig.step(rig.timing.heartbeat);
        rig.pong(2, rig.leader.pings());
        rig.tell(ask);
        REQUIRE(rig.count(MessageType::chunk) == 2);
        const Said chunk = rig.take(MessageType::chunk)[1];
        CHECK(chunk.message.offset == got.size());
        CHECK(chunk.message.total == 2500);
        got += chunk.payload;
    }
    CHECK(got == state);
    rig.forget();
    SUBCASE("an offset behind the end") { ask.offset = 2501; }
    SUBCASE("another snapshot") { ask.offset = 0, ask.zxid = Zxid{1, 3}; }
    SUBCASE("another attempt") { ask.offset = 0, ask.attempt = 4; }
    rig.tell(ask);
    CHECK(rig.count(MessageType::chunk) == 0);
}

TEST_CASE("synchronization: a snapshot is offered again until it is acknowledged") {
    Rig rig(5);
    rig.leader.stop();
    const coord::LogPosition taken_at{Zxid{1, 4}, rig.log.crc_at(Zxid{1, 4})};
    REQUIRE(support::take_snapshot(rig.log, taken_at, "state", 1) == Errc::ok);
    rig.flush();
    rig.leader.start(rig.now);
    rig.to_promise();
    rig.ack_epoch(2, Zxid{}, 0, 0);
    rig.step();
    REQUIRE(rig.count(MessageType::snap) == 1);
    CHECK(rig.leader.is_fetched(rig.now));
    rig.step(milliseconds(1));
    CHECK(rig.count(MessageType::snap) == 1);
    rig.step(rig.timing.retry());
    CHECK(rig.count(MessageType::snap) == 2);
    rig.ack(2, Zxid{1, 4}, 0);
    CHECK_FALSE(rig.leader.is_fetched(rig.now));
    rig.forget();
    rig.step(rig.timing.retry());
    CHECK(rig.count(MessageType::snap) == 0);
    REQUIRE(rig.count(MessageType::proposal) == 1);
    CHECK(rig.take(MessageType::proposal)[0].message.zxid == Zxid{1, 4});
}

TEST_CASE("an empty history with a checksum is nobody's") {
    Rig rig;
    rig.to_promise();
    rig.ack_epoch(2, Zxid{}, 77);
    rig.step();
    CHECK(rig.leader.phase() == Phase::promise);
    rig.ack_epoch(2, Zxid{}, 0);
    rig.step();
    CHECK(rig.leader.phase() == Phase::synchronization);
    rig.ack_epoch(3, Zxid{}, 99);  // after that too
    CHECK(rig.count(MessageType::snap, 3) == 0);
}

TEST_CASE("Z3 nothing commits before a quorum has the initial history and the epoch") {
    Rig rig(5);
    rig.to_synchronization();
    CHECK(rig.leader.committed() == Zxid{});
    rig.ack(2, Zxid{1, 4});
    rig.step();
    CHECK(rig.leader.phase() == Phase::synchronization);
    rig.ack(2, Zxid{1, 5}, 0);  // all of it, but the epoch is not durable there
    rig.step();
    CHECK(rig.leader.phase() == Phase::synchronization);
    CHECK(rig.leader.committed() == Zxid{});
    CHECK_FALSE(rig.leader.can_number(rig.machine));
    rig.ack(2, Zxid{1, 5});
    rig.step();
    CHECK(rig.leader.is_established());
    CHECK(rig.leader.committed() == Zxid{1, 5});
    CHECK(rig.count(MessageType::up_to_date) == 1);
    CHECK(rig.count(MessageType::up_to_date, 3) == 0);
}

TEST_CASE("Z3 Z4 its own disk counts as anybody's: held back, a quorum of one is none") {
    Rig rig(2);
    rig.to_promise();
    rig.disk.hold_flushes();
    rig.ack_epoch(2, rig.log.last().zxid, rig.log.last().crc, 1);
    rig.step();
    REQUIRE(rig.leader.phase() == Phase::synchronization);
    rig.ack(2, Zxid{1, 2});
    rig.step();
    CHECK(rig.leader.phase() == Phase::synchronization);
    rig.disk.stop_holding();
    rig.step();
    CHECK(rig.leader.is_established());
}

TEST_CASE("Z4 an entry commits when a quorum has it durable, each with the epoch current") {
    Rig rig;
    rig.to_broadcast();
    rig.follower_info(3), rig.ack_epoch(3, Zxid{}, 0);
    rig.disk.hold_flushes();
    rig.number({}, 0, OpCode::open_session, Rig::open_body(1));
    const Zxid first = rig.log.last().zxid;
    CHECK(first == Zxid{1, 1});
    rig.step();
    CHECK(rig.count(MessageType::proposal) == 1);  // before its own flush
    rig.ack(3, first, 0);  // 3 has it, but not the epoch
    rig.ack(2, Zxid{}, 2);
    rig.step();
    CHECK(rig.leader.committed() == Zxid{});
    rig.ack(2, first, 2);
    rig.step();
    CHECK(rig.leader.committed() == Zxid{});  // its own disk is not there
    rig.ack(3, first, 1);
    rig.step();
    CHECK(rig.leader.committed() == first);  // the two others are a quorum
    CHECK(rig.machine.applied() == Zxid{});  // and nothing is applied that is not durable here
    rig.disk.stop_holding();
    rig.step();
    CHECK(rig.machine.applied() == first);
}

TEST_CASE("Z4 acks of strangers, of other epochs and of what there is not do not count") {
    Rig rig;
    rig.to_broadcast();
    rig.number({}, 0, OpCode::open_session, Rig::open_body(1));
    rig.step();
    const Zxid zxid = rig.log.last().zxid;
    Message ack = rig.from(2, MessageType::ack);
    ack.zxid = ack.commit = zxid, ack.phase = 2;
    SUBCASE("a stranger") { ack.from = PeerId{9}; }
    SUBCASE("itself") { ack.from = PeerId{1}; }
    SUBCASE("nobody") { ack.from = PeerId{}; }
    SUBCASE("an older epoch") { ack.epoch = 0; }
    SUBCASE("a later epoch") { ack.epoch = 2; }
    SUBCASE("more than there is") { ack.zxid = Zxid{1, 2}; }
    SUBCASE("received more than there is") { ack.commit = Zxid{7, 7}; }
    rig.tell(ack);
    rig.step();
    CHECK(rig.leader.committed() == Zxid{});
}

TEST_CASE("a commit is told once, with the digest, and never before a quorum has it") {
    Rig rig;
    rig.to_broadcast();
    rig.number({}, 0, OpCode::open_session, Rig::open_body(1));
    rig.step();
    CHECK(rig.count(MessageType::commit) == 0);
    rig.ack(2, rig.log.last().zxid, 2);
    rig.step();
    rig.step();
    REQUIRE(rig.count(MessageType::commit) == 1);
    CHECK(rig.take(MessageType::commit)[0].message.commit == rig.log.last().zxid);
    CHECK(rig.take(MessageType::commit)[0].message.digest == rig.machine.digest());
}

TEST_CASE("entries that are not acknowledged are sent again; a gap is filled at once") {
    Rig rig;
    rig.to_broadcast();
    for (std::uint64_t i = 1; i <= 3; i++) {
        rig.number({}, 0, OpCode::open_session, Rig::open_body(i));
        rig.step();
    }
    CHECK(rig.count(MessageType::proposal) == 3);
    rig.forget();
    Message gap = rig.from(2, MessageType::ack);
    gap.zxid = Zxid{}, gap.commit = Zxid{1, 1}, gap.phase = 2, gap.offset = 1;
    rig.tell(gap);
    rig.step();
    REQUIRE(rig.count(MessageType::proposal) == 1);
    CHECK(rig.take(MessageType::proposal)[0].message.zxid == Zxid{1, 1});
    CHECK(rig.leader.counters().retransmissions == 1);
    rig.forget();
    rig.step(rig.timing.heartbeat + milliseconds(1));  // no answer, but it may be slow
    CHECK(rig.count(MessageType::proposal) == 0);
    CHECK(rig.leader.next_deadline(rig.now) > rig.now);
    rig.pong(2, rig.leader.pings());  // what came after it has come
    CHECK(rig.leader.next_deadline(rig.now) <= rig.now);
    rig.step();
    REQUIRE(rig.count(MessageType::proposal) == 1);
    CHECK(rig.leader.counters().retransmissions == 2);
}

TEST_CASE("nothing is streamed to a silent peer; heard again, it gets what it has not received") {
    Rig rig;
    rig.to_broadcast();
    rig.follower_info(3);
    rig.ack_epoch(3, {}, 0);
    rig.ack(3, {}, 2);
    const auto number = [&](coord::Duration passed) {
        rig.forget();
        rig.number({}, 0, OpCode::open_session, Rig::open_body(rig.log.last().zxid.value + 1));
        rig.step(passed);
        rig.ack(2, rig.log.last().zxid, 2);
    };
    number({});
    CHECK(rig.count(MessageType::proposal, 3) == 1);
    rig.ack(3, rig.log.last().zxid, 2);
    const Zxid received = rig.log.last().zxid;
    for (int i = 0; i < 5; i++) number(rig.timing.silence / 5);
    CHECK(rig.count(MessageType::proposal, 3) > 0);  // it may yet answer
    for (int i = 0; i < 20; i++) {
        number(milliseconds(30));
        CHECK(rig.count(MessageType::proposal, 3) == 0);
        CHECK(rig.count(MessageType::proposal, 2) == 1);
        CHECK(rig.leader.next_deadline(rig.now) > rig.now);  // it asks for no poll either
    }
    rig.forget();
    rig.pong(3, rig.leader.pings());
    rig.step();
    REQUIRE(rig.count(MessageType::proposal, 3) > 0);
    CHECK(rig.take(MessageType::proposal, 3)[0].message.zxid == received);
}

// Z22. It answers pings, and what it is sent does not come: a path that is slow, or loses what is
// large. What queues up somewhere must not grow for ever.
TEST_CASE("Z22 to one that does not progress: one message, again when a later ping is answered") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1, 1000);
    rig.number_some(id, 100);
    rig.step();
    const Zxid received = rig.log.base();
    CHECK(rig.count(MessageType::proposal) > 5);  // of 1024 bytes
    rig.forget();
    rig.step(rig.timing.heartbeat + milliseconds(1));
    CHECK(rig.count(MessageType::proposal) == 0);
    rig.pong(2, rig.leader.pings());
    rig.step(milliseconds(1));  // the first time it may be chance
    CHECK(rig.count(MessageType::proposal) > 5);
    rig.step(rig.timing.heartbeat + milliseconds(1));
    std::size_t sent = 0;
    for (int i = 0; i < 10; i++) {
        rig.forget();
        rig.pong(2, rig.leader.pings());
        rig.step(rig.timing.heartbeat + milliseconds(1));
        CHECK(rig.count(MessageType::proposal) <= 1);
        sent += rig.count(MessageType::proposal);
        CHECK(rig.leader.next_deadline(rig.now) > rig.now);
    }
    CHECK(sent >= 8);
    const std::uint64_t answered = rig.leader.pings();
    rig.step(rig.timing.heartbeat + milliseconds(1));
    rig.forget();
    for (int i = 0; i < 10; i++) {
        rig.pong(2, answered - 3);  // to a ping that was sent before the message
        rig.step(rig.timing.heartbeat + milliseconds(1));
        CHECK(rig.count(MessageType::ping) == static_cast<std::size_t>(i) + 1);  // none waits
        CHECK(rig.count(MessageType::proposal) == 0);
        CHECK(rig.leader.next_deadline(rig.now) > rig.now);
    }
    CHECK(received < rig.log.last().zxid);
    rig.forget();
    rig.pong(2, rig.leader.pings());
    rig.step(rig.timing.heartbeat + milliseconds(1));
    CHECK(rig.count(MessageType::proposal) == 1);
    std::size_t most = 0;
    for (int i = 0; i < 12; i++) {  // it takes what it is sent, at once: it is sent ever more
        rig.number_some(id, 100);
        rig.step();
        most = (std::max)(most, rig.count(MessageType::proposal));
        rig.forget();
        rig.ack(2, rig.log.last().zxid, 2);
    }
    CHECK(most > 5);
}

// Z22. One is lost, and each of those that were sent behind it shows the gap: what is sent again
// for the first is on its way then, behind all of these.
TEST_CASE("Z22 a gap is filled once; again only when a ping that was sent since is answered") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1, 1000);
    const Zxid received = rig.log.last().zxid;
    rig.pong(2, rig.leader.pings());
    rig.number_some(id, 100);
    rig.step();
    rig.forget();
    Message gap = rig.from(2, MessageType::ack);
    gap.zxid = gap.commit = received, gap.phase = 2, gap.offset = 1;
    rig.step(rig.timing.settle());
    const std::uint64_t pings = rig.leader.pings();
    rig.tell(gap), rig.step();
    CHECK(rig.count(MessageType::proposal) > 5);
    rig.forget();
    for (int i = 0; i < 8; i++) {
        rig.pong(2, pings);  // of one that came before it was filled
        rig.tell(gap);
        rig.step(rig.timing.settle());
    }
    CHECK(rig.count(MessageType::proposal) == 0);
    REQUIRE(rig.leader.pings() > pings);
    rig.pong(2, rig.leader.pings());
    rig.tell(gap), rig.step();  // it was lost once more
    CHECK(rig.count(MessageType::proposal) == 1);
}

// Z23. What opens and ends sessions is numbered all the same.
TEST_CASE("Z23 what is numbered and not applied is bounded; then requests wait, in their order") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1, 1000);
    std::uint64_t nonce = 1;
    while (rig.leader.has_room_to_number() && nonce < 100000) {
        nonce += 1;
        rig.number({}, 0, OpCode::open_session, Rig::open_body(nonce));
    }
    CHECK(nonce == 65536 + 1);
    Bytes payload;
    coord::Writer writer(payload);
    for (std::uint64_t cxid = 1; cxid <= 3; cxid++) {
        writer.u64(id.value), writer.u64(cxid), writer.u64(0), writer.u8(3);
        writer.bytes(Rig::create_body("/n" + std::to_string(cxid)));
    }
    Message message = rig.from(2, MessageType::request);
    message.payload = payload;
    CHECK(rig.tell(message));
    const Zxid last = rig.log.last().zxid;
    const auto take = [&] {
        rig.leader.take_requests([&](const Txn& request) {
            rig.leader.number(5000, rig.machine, request);
        });
    };
    take();
    CHECK(rig.log.last().zxid == last);
    rig.step();
    CHECK(rig.leader.next_deadline(rig.now) > rig.now);  // it waits for others
    rig.number({}, 0, OpCode::open_session, Rig::open_body(nonce + 1));
    CHECK(rig.log.last().zxid.counter() == last.counter() + 1);
    rig.ack(2, rig.log.last().zxid, 2);
    rig.step();
    CHECK(rig.leader.has_room_to_number());
    CHECK(rig.leader.next_deadline(rig.now) <= rig.now);
    take();
    CHECK(rig.log.last().zxid.counter() == last.counter() + 4);
    rig.settle();
    CHECK(rig.machine.tree().contains("/n3"));
}

TEST_CASE("Z23 requests that wait to be numbered are bounded in bytes; what is lost comes again") {
    Rig rig;
    rig.to_broadcast();
    Bytes payload;
    coord::Writer writer(payload);
    writer.u64(77), writer.u64(1), writer.u64(0), writer.u8(3);
    writer.bytes(Bytes(700, 'r'));
    Message message = rig.from(2, MessageType::request);
    message.payload = payload;
    std::size_t told = 0;
    while (rig.leader.counters().requests_ignored == 0 && told < 100000) {
        rig.tell(message);
        told += 1;
    }
    CHECK(told == 16 * 1024 * 1024 / 700 + 2);
    std::size_t taken = 0;
    rig.leader.take_requests([&](const Txn& request) {
        CHECK(request.body.size() == 700);
        taken += 1;
    });
    CHECK(taken == told - 1);
    rig.tell(message);
    CHECK(rig.leader.counters().requests_ignored == 1);
}

// The counter is at its end: what is asked for then is numbered by the next leader, in an epoch of
// its own.
TEST_CASE("the last zxid of an epoch is taken, and then the leader gives up by name") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1, 1000);
    const std::uint64_t left = 3;
    rig.append(Zxid{rig.leader.epoch(), Zxid::counter_max - left});  // as if there had been so many
    for (std::uint64_t cxid = 1; cxid <= left; cxid++) {
        rig.number(id, cxid, OpCode::create, Rig::create_body("/n" + std::to_string(cxid)));
        CHECK(rig.leader.resignation() == nullptr);
    }
    const Zxid last{rig.leader.epoch(), Zxid::counter_max};
    CHECK(rig.log.last().zxid == last);
    rig.number(id, left + 1, OpCode::create, Rig::create_body("/more"));
    CHECK(rig.log.last().zxid == last);
    REQUIRE(rig.leader.resignation() != nullptr);
    CHECK(std::string(rig.leader.resignation()) == "the epoch's counter has come to its end");
    CHECK(rig.leader.next_deadline(rig.now) <= rig.now);
}

TEST_CASE("NEWLEADER and UPTODATE are said again to who has not heard them") {
    Rig rig(2);
    rig.to_synchronization();
    rig.ack(2, Zxid{1, 2}, 0);  // it has the history, and nothing of the epoch
    rig.forget();
    rig.step(milliseconds(1));
    CHECK(rig.count(MessageType::new_leader) == 0);
    rig.step(rig.timing.retry());
    REQUIRE(rig.count(MessageType::new_leader) == 1);
    CHECK(rig.take(MessageType::new_leader)[0].message.zxid == Zxid{1, 2});
    rig.ack(2, Zxid{1, 2}, 1);
    CHECK(rig.count(MessageType::up_to_date) == 0);  // not established yet
    rig.step(rig.timing.retry());
    REQUIRE(rig.leader.is_established());
    CHECK(rig.count(MessageType::new_leader) == 1);
    CHECK(rig.count(MessageType::up_to_date) == 1);
    rig.forget();
    rig.ack(2, Zxid{1, 2}, 1);
    REQUIRE(rig.count(MessageType::up_to_date) == 1);
    CHECK(rig.take(MessageType::up_to_date)[0].message.commit == Zxid{1, 2});
    rig.ack(2, Zxid{1, 2}, 2);
    CHECK(rig.count(MessageType::up_to_date) == 1);
}

TEST_CASE("a stale attempt is ignored; a life not heard of before begins anew") {
    Rig rig(3);
    rig.to_synchronization();
    rig.forget();
    Message old = rig.from(2, MessageType::ack_epoch);
    old.attempt = 4, old.zxid = Zxid{1, 1}, old.crc = rig.log.crc_at(Zxid{1, 1});
    rig.tell(old);
    CHECK(rig.count(MessageType::diff) == 0);
    old.nonce = 999;
    rig.tell(old);
    REQUIRE(rig.count(MessageType::diff) == 1);
    CHECK(rig.take(MessageType::diff)[0].message.zxid == Zxid{1, 1});
}

TEST_CASE("step-down: without a quorum in reach for the time of silence, and not before") {
    Rig rig;
    rig.to_broadcast();
    rig.step(rig.timing.silence);
    CHECK(rig.leader.resignation() == nullptr);
    CHECK(rig.leader.synced(rig.now) == 2);
    rig.step(milliseconds(1));
    REQUIRE(rig.leader.resignation() != nullptr);
    CHECK(std::string(rig.leader.resignation()) == "no quorum is in reach");
    CHECK(rig.leader.synced(rig.now) == 1);
    CHECK_FALSE(rig.leader.can_number(rig.machine));
}

TEST_CASE("step-down: any voter that is heard keeps it, and a hint that it is gone counts") {
    Rig rig;
    rig.to_broadcast();
    for (int i = 0; i < 10; i++) {
        rig.pong(3, rig.leader.pings());
        rig.step(rig.timing.silence / 2);
    }
    CHECK(rig.leader.resignation() == nullptr);
    rig.leader.forget(PeerId{2});
    rig.leader.forget(PeerId{3});
    rig.leader.forget(PeerId{77});
    rig.step();
    CHECK(rig.leader.resignation() != nullptr);
}

TEST_CASE("step-down: a quorum that never promises") {
    Rig rig;
    rig.to_promise();
    for (int i = 0; i < 30 && rig.leader.resignation() == nullptr; i++) {
        rig.follower_info(2);
        rig.step(milliseconds(50));
    }
    REQUIRE(rig.leader.resignation() != nullptr);
    CHECK(std::string(rig.leader.resignation()) == "no quorum has promised");
}

TEST_CASE("Z6 requests are numbered in cxid order, each once") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1);
    const Zxid start = rig.log.last().zxid;
    const Bytes body = Rig::create_body("/a");
    const auto numbered = [&] { return rig.log.last().zxid.value - start.value; };
    rig.number(id, 2, OpCode::create, body);
    CHECK(numbered() == 0);
    rig.number(id, 0, OpCode::create, body);
    CHECK(numbered() == 0);
    rig.number(id, 1, OpCode::create, body);
    CHECK(numbered() == 1);
    rig.number(id, 1, OpCode::create, body);
    CHECK(numbered() == 1);
    rig.number(id, 2, OpCode::create, body);
    rig.number(id, 3, OpCode::create, body);
    CHECK(numbered() == 3);
    rig.number(SessionId{4711}, 1, OpCode::create, body);
    rig.number(SessionId{}, 1, OpCode::create, body);
    rig.number(id, 4, OpCode::create, "junk");
    rig.number(id, 4, static_cast<OpCode>(0), body);
    rig.number(id, 4, OpCode::create, Rig::create_body(Bytes(900, 'x')));  // fits in no message
    CHECK(numbered() == 3);
    CHECK(rig.leader.counters().requests_ignored == 8);
}

TEST_CASE("Z6 a bound on what is not confirmed") {
    Rig rig;
    rig.limits.requests_per_session_max = 2;
    rig.to_broadcast();
    const SessionId id = rig.open(1);
    const Zxid start = rig.log.last().zxid;
    for (std::uint64_t cxid = 1; cxid <= 10; cxid++) {
        rig.number(id, cxid, OpCode::create, Rig::create_body("/a"));
    }
    CHECK(rig.log.last().zxid.value - start.value == 4);  // twice the limit: a close has room
    rig.number(id, 5, OpCode::create, Rig::create_body("/a"), 1);
    CHECK(rig.log.last().zxid.value - start.value == 5);
}

TEST_CASE("Z6 nothing of a session is numbered after its close") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1);
    rig.number(id, 1, OpCode::close_session, BytesView("\0", 1));
    const Zxid closed = rig.log.last().zxid;
    rig.number(id, 2, OpCode::create, Rig::create_body("/late"));
    CHECK(rig.log.last().zxid == closed);
    rig.step();
    rig.ack(2, closed, 2);
    rig.step();
    CHECK(rig.machine.find_session(id) == nullptr);
    rig.number(id, 2, OpCode::create, Rig::create_body("/late"));
    CHECK(rig.log.last().zxid == closed);
}

TEST_CASE("an open that is repeated before and after it is applied is numbered once") {
    Rig rig;
    rig.to_broadcast();
    const Bytes body = Rig::open_body(42);
    rig.number({}, 0, OpCode::open_session, body);
    const Zxid opened = rig.log.last().zxid;
    rig.number({}, 0, OpCode::open_session, body);
    rig.step();
    rig.ack(2, opened, 2);
    rig.step();
    rig.number({}, 0, OpCode::open_session, body);
    CHECK(rig.log.last().zxid == opened);
    // Its requests may be numbered before the open is applied.
    rig.number({}, 0, OpCode::open_session, Rig::open_body(43));
    const SessionId early{rig.log.last().zxid.value};
    rig.number(early, 1, OpCode::create, Rig::create_body("/a"));
    CHECK(rig.log.last().zxid == Zxid{early.value + 1});
}

namespace {

// Of a session that was local.
Bytes open_local_body(std::uint64_t id) {
    return Rig::open_body((std::uint64_t{1} << 63) + id) + '\1';
}

}  // namespace

TEST_CASE("Z14 a session that was local is opened once, by whoever knows how it stands") {
    Rig rig;
    rig.to_broadcast();
    const Bytes body = open_local_body(7);
    const SessionId id{(std::uint64_t{1} << 63) + 7};
    const auto commit = [&] {
        rig.step();
        rig.ack(2, rig.log.last().zxid, 2);
        rig.step();
        return rig.log.last().zxid;
    };
    const auto is_numbered = [&](const Bytes& opening, std::uint64_t as_of) {
        const Zxid before = rig.log.last().zxid;
        rig.number({}, as_of, OpCode::open_session, opening);
        return rig.log.last().zxid > before;
    };
    REQUIRE(is_numbered(body, 0));
    CHECK_FALSE(is_numbered(body, 0));
    const Zxid opened = commit();
    REQUIRE(rig.machine.find_session(id) != nullptr);
    CHECK_FALSE(is_numbered(body, opened.value));
    rig.number(id, 1, OpCode::create, Rig::create_body("/a"));
    rig.number(id, 2, OpCode::close_session, BytesView("\0", 1));
    CHECK_FALSE(is_numbered(body, rig.log.last().zxid.value));  // it is not over yet
    const Zxid closed = commit();
    CHECK(rig.machine.find_session(id) == nullptr);
    CHECK_FALSE(is_numbered(body, 0));
    CHECK_FALSE(is_numbered(body, opened.value));
    CHECK_FALSE(is_numbered(body, closed.value - 1));
    CHECK(is_numbered(open_local_body(8), 0));  // another one's end is no matter
    CHECK(is_numbered(body, closed.value));     // somebody has drawn the same number again
}

TEST_CASE("Z14 of ends under earlier leaders the newest leader's history is the bound") {
    Rig rig(5);
    rig.to_broadcast();
    const Zxid initial = rig.log.last().zxid;
    REQUIRE(initial > Zxid{});
    rig.number({}, initial.value - 1, OpCode::open_session, open_local_body(7));
    CHECK(rig.log.last().zxid == initial);
    rig.number({}, initial.value, OpCode::open_session, open_local_body(7));
    CHECK(rig.log.last().zxid > initial);
}

TEST_CASE("Z14 one that was refused has ended there, and of very many ends the last one counts") {
    coord::Limits limits;
    limits.sessions_max = 1;
    Rig rig(0, 1, limits);
    rig.to_broadcast();
    const SessionId only = rig.open(1);
    const auto commit = [&] {
        rig.step();
        rig.ack(2, rig.log.last().zxid, 2);
        rig.step();
        return rig.log.last().zxid;
    };
    const auto is_numbered = [&](std::uint64_t number, std::uint64_t as_of) {
        const Zxid before = rig.log.last().zxid;
        rig.number({}, as_of, OpCode::open_session, open_local_body(number));
        return rig.log.last().zxid > before;
    };
    REQUIRE(is_numbered(7, only.value));
    const Zxid refused = commit();
    CHECK(rig.machine.sessions().size() == 1);
    CHECK_FALSE(is_numbered(7, only.value));
    CHECK(is_numbered(9, only.value));
    commit();
    for (std::uint64_t i = 0; i < 4200; i++) {
        REQUIRE(is_numbered(1000 + i, rig.log.last().zxid.value));
        if (i % 50 == 49) commit();
    }
    const Zxid last = commit();
    CHECK_FALSE(is_numbered(7, only.value));
    CHECK_FALSE(is_numbered(7, refused.value));
    CHECK_FALSE(is_numbered(10, only.value));
    CHECK(is_numbered(7, last.value));
}

TEST_CASE("requests of learners are taken in order, and junk after them is dropped") {
    Rig rig;
    rig.to_broadcast();
    Bytes payload;
    coord::Writer writer(payload);
    for (std::uint64_t cxid = 1; cxid <= 3; cxid++) {
        writer.u64(77), writer.u64(cxid), writer.u64(0), writer.u8(3), writer.bytes("body");
    }
    writer.raw("junk");
    Message message = rig.from(2, MessageType::request);
    message.payload = payload;
    CHECK(rig.tell(message));
    std::vector<std::uint64_t> cxids;
    rig.leader.take_requests([&](const Txn& request) {
        CHECK(request.session == SessionId{77});
        CHECK(request.op == OpCode::create);
        CHECK(request.body == "body");
        cxids.push_back(request.cxid);
    });
    CHECK(cxids == std::vector<std::uint64_t>{1, 2, 3});
    CHECK(rig.leader.counters().requests_ignored == 1);
    rig.leader.take_requests([&](const Txn&) { FAIL("they were taken already"); });
}

TEST_CASE("a session that is not touched expires, one that is does not") {
    Rig rig;
    rig.to_broadcast();
    const SessionId silent = rig.open(1, 1000), touched = rig.open(2, 1000);
    for (int i = 0; i < 40 && rig.leader.counters().sessions_expired == 0; i++) {
        rig.pong(2, rig.leader.pings());
        rig.leader.touch(touched);
        rig.step(milliseconds(50));
        rig.leader.look_at_sessions(0);
    }
    CHECK(rig.leader.counters().sessions_expired == 1);
    rig.number(silent, 1, OpCode::create, Rig::create_body("/late"));  // Z6: from here on
    rig.step();
    rig.ack(2, rig.log.last().zxid, 2);
    rig.step();
    CHECK(rig.machine.find_session(silent) == nullptr);
    CHECK(rig.machine.find_session(touched) != nullptr);
    CHECK_FALSE(rig.machine.tree().contains("/late"));
}

TEST_CASE("the clock of expiry does not run over a gap in the polling") {
    Rig rig;
    rig.to_broadcast();
    rig.open(1, 1000);
    for (int i = 0; i < 4; i++) {
        rig.now = rig.now + coord::seconds(100);
        rig.pong(2, rig.leader.pings());
        rig.step();
        rig.leader.look_at_sessions(0);
    }
    CHECK(rig.leader.resignation() == nullptr);
    CHECK(rig.leader.counters().sessions_expired == 0);
    for (int i = 0; i < 20; i++) {
        rig.pong(2, rig.leader.pings());
        rig.step(milliseconds(100));
        rig.leader.look_at_sessions(0);
    }
    CHECK(rig.leader.counters().sessions_expired == 1);
}

TEST_CASE("Z12 what is due is looked for at an interval, and its reap is numbered once") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1, 1000);
    rig.create(id, 1, "/t", 5, 10);
    rig.create(id, 2, "/later", 5, 1001);
    rig.create(id, 3, "/c", 4);
    const Zxid czxid = rig.machine.tree().find("/t")->stat.czxid;
    const Zxid before = rig.log.last().zxid;
    rig.pass(id, coord::seconds(59));
    rig.leader.reap(rig.now, 6000, rig.machine);
    CHECK(rig.log.last().zxid == before);
    rig.pass(id, coord::seconds(1));
    rig.leader.reap(rig.now, 6000, rig.machine);
    CHECK(rig.leader.counters().reaps == 1);
    const Txn reap = rig.newest();
    CHECK(reap.zxid > before);
    CHECK(reap.op == OpCode::reap);
    CHECK(reap.session == SessionId{});
    CHECK(reap.cxid == 0);
    CHECK(reap.time_ms == 6000);
    coord::Reader in(reap.body);
    CHECK(in.bytes(100) == "/t");
    CHECK(in.zxid() == czxid);
    CHECK(in.done());
    rig.settle();
    CHECK_FALSE(rig.machine.tree().contains("/t"));
    CHECK(rig.machine.tree().contains("/later"));
    CHECK(rig.machine.tree().contains("/c"));  // it has had no child
    rig.pass(id, coord::seconds(59));
    rig.leader.reap(rig.now, 6001, rig.machine);
    CHECK(rig.leader.counters().reaps == 1);
    rig.pass(id, coord::seconds(2));
    rig.leader.reap(rig.now, 6001, rig.machine);
    CHECK(rig.leader.counters().reaps == 1);  // not due at the time of the poll
    rig.pass(id, coord::seconds(61));
    rig.leader.reap(rig.now, 6002, rig.machine);
    CHECK(rig.leader.counters().reaps == 2);
}

TEST_CASE("Z12 M7 what comes between the looking and the applying makes a reap void") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1, 1000);
    rig.create(id, 1, "/t", 5, 10);
    rig.pass(id, coord::seconds(61));
    rig.number(id, 2, OpCode::create, Rig::create_body("/t/x"));  // not applied yet
    rig.leader.reap(rig.now, 6000, rig.machine);
    CHECK(rig.leader.counters().reaps == 1);
    rig.settle();
    CHECK(rig.machine.tree().contains("/t/x"));
    CHECK(rig.machine.applied() == rig.log.last().zxid);
}

TEST_CASE("Z12 many that are due: in slices, at a pace, and never too many in one poll") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1, 1000);
    constexpr std::uint64_t nodes = 200;
    for (std::uint64_t i = 1; i <= nodes; i++) rig.create(id, i, "/t" + std::to_string(i), 5, 1);
    rig.pass(id, coord::seconds(61));
    std::uint64_t polls = 0;
    for (; rig.leader.counters().reaps < nodes && polls < 2000; polls++) {
        const std::uint64_t before = rig.leader.counters().reaps;
        rig.leader.reap(rig.now, 6000, rig.machine);
        const std::uint64_t more = rig.leader.counters().reaps - before;
        CHECK(more <= 16);
        if (more > 0 && before + more < nodes) {  // it goes on soon, though nothing else is due
            rig.settle();
            CHECK(rig.leader.next_deadline(rig.now) <= rig.now + milliseconds(96));
            rig.leader.reap(rig.now, 6000, rig.machine);
            CHECK(rig.leader.counters().reaps == before + more);
        }
        rig.ack(2, rig.log.last().zxid, 2);
        rig.pass(id, milliseconds(4));
    }
    CHECK(polls >= 200 * 6 / 4 - 50);  // 10,000 a minute are one in 6 ms
    rig.settle();
    CHECK(rig.machine.tree().size() == 4);
    CHECK(rig.log.last().zxid == rig.machine.applied());
}

TEST_CASE("Z12 without space nothing is numbered, and it is looked for another time") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1, 1000);
    rig.create(id, 1, "/t", 5, 1);
    rig.pass(id, coord::seconds(61));
    rig.narrow.is_full = true;
    const Zxid before = rig.log.last().zxid;
    rig.leader.reap(rig.now, 6000, rig.machine);
    CHECK(rig.log.last().zxid == before);
    CHECK(rig.leader.counters().reaps == 0);
    CHECK(rig.leader.error() == Errc::ok);
    CHECK(rig.leader.next_deadline(rig.now) > rig.now + milliseconds(50));
    rig.narrow.is_full = false;
    rig.pass(id, coord::seconds(61));
    rig.leader.reap(rig.now, 6000, rig.machine);
    CHECK(rig.leader.counters().reaps == 1);
}

// A numbered name is longer than what its create said, and a reap says it all. An entry that no
// message can hold would be the end of every reign.
TEST_CASE("Z12 a node whose reap has no room in a message stays") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1, 1000);
    const Bytes longest = "/" + Bytes(749, 'x');
    rig.number(id, 1, OpCode::create, Rig::create_body(longest, 6, 1));
    rig.settle();
    REQUIRE(rig.machine.tree().contains(longest + "0000000000"));
    rig.create(id, 2, "/t", 5, 1);
    rig.pass(id, coord::seconds(61));
    rig.leader.reap(rig.now, 6000, rig.machine);
    CHECK(rig.leader.counters().reaps == 1);
    rig.settle();
    CHECK(rig.leader.resignation() == nullptr);
    CHECK_FALSE(rig.machine.tree().contains("/t"));
    CHECK(rig.machine.tree().contains(longest + "0000000000"));
    const Bytes longest_but_two = "/" + Bytes(747, 'x');
    rig.number(id, 3, OpCode::create, Rig::create_body(longest_but_two, 6, 1));
    rig.settle();
    rig.pass(id, coord::seconds(61));
    rig.leader.reap(rig.now, 6000, rig.machine);
    CHECK(rig.leader.counters().reaps == 2);
    rig.settle();
    CHECK(rig.leader.resignation() == nullptr);
    CHECK_FALSE(rig.machine.tree().contains(longest_but_two + "0000000002"));
}

TEST_CASE("M7 Z12 a learner cannot have a reap numbered") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1, 1000);
    rig.create(id, 1, "/t", 5, 1);
    Bytes body;
    coord::Writer out(body);
    out.bytes("/t"), out.zxid(rig.machine.tree().find("/t")->stat.czxid);
    const Zxid before = rig.log.last().zxid;
    rig.number({}, 0, OpCode::reap, body);
    rig.number(id, 2, OpCode::reap, body);
    CHECK(rig.log.last().zxid == before);
    CHECK(rig.leader.counters().requests_ignored == 2);
}

TEST_CASE("a touch counts from when it comes, not from the poll before") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1, 1000);
    Bytes payload;
    coord::Writer(payload).u64(id.value);
    rig.now = rig.now + milliseconds(190);  // nobody has polled meanwhile
    Message pong = rig.from(2, MessageType::pong);
    pong.sequence = rig.leader.pings(), pong.touch = 1, pong.total = 1, pong.payload = payload;
    rig.tell(pong);
    for (int passed = 0; passed < 950; passed += 50) {
        rig.pong(2, rig.leader.pings());
        rig.step(milliseconds(50));
        rig.leader.look_at_sessions(0);
    }
    CHECK(rig.leader.counters().sessions_expired == 0);
    for (int i = 0; i < 4; i++) {
        rig.pong(2, rig.leader.pings());
        rig.step(milliseconds(50));
        rig.leader.look_at_sessions(0);
    }
    CHECK(rig.leader.counters().sessions_expired == 1);
}

TEST_CASE("a pong touches the sessions that it names, also in a list of very many parts") {
    for (const std::uint64_t parts : {1u, 64u, 65u, 1000u}) {
        CAPTURE(parts);
        Rig rig;
        rig.to_broadcast();
        const SessionId id = rig.open(1, 1000);
        Bytes payload;
        coord::Writer(payload).u64(id.value);
        for (int i = 0; i < 40; i++) {
            Message pong = rig.from(2, MessageType::pong);
            pong.sequence = rig.leader.pings(), pong.touch = static_cast<std::uint64_t>(i) + 1;
            pong.offset = parts - 1, pong.total = parts, pong.payload = payload;
            rig.tell(pong);
            rig.step(milliseconds(50));
            rig.leader.look_at_sessions(0);
        }
        CHECK(rig.leader.counters().sessions_expired == 0);
    }
}

// What the log says of how long sessions have been silent: "ID MS, ..." of its newest entry.
std::string silence_of(Rig& rig) {
    const Txn txn = rig.newest();
    if (txn.op != OpCode::silence) return "another entry";
    CHECK(txn.session == SessionId{});
    CHECK(txn.cxid == 0);
    std::string text;
    for (coord::Reader in(txn.body); in.left() > 0;) {
        text += text.empty() ? "" : ", ";
        text += std::to_string(in.u64() & 0xff) + " ";
        text += std::to_string(in.u32());
    }
    return text;
}

TEST_CASE("Z13 silence is numbered at each quarter of a timeout, once, and that it is over") {
    Rig rig;
    rig.to_broadcast();
    const SessionId one = rig.open(1, 4000), two = rig.open(2, 8000), touched = rig.open(3, 4000);
    std::string said;
    Zxid newest = rig.log.last().zxid;
    const auto pass = [&](int ms) {
        for (int i = 0; i < ms; i += 100) {
            rig.pong(2, rig.leader.pings());
            rig.leader.touch(touched);
            rig.step(milliseconds(100));
            rig.leader.look_at_sessions(0);
            if (rig.log.last().zxid == newest) continue;
            newest = rig.log.last().zxid;
            said += silence_of(rig) + "; ";
        }
    };
    const auto name = [](SessionId id) { return std::to_string(id.value & 0xff); };
    pass(3800);
    const std::string a = name(one), b = name(two);
    CHECK(said == a + " 1000; " + b + " 2000, " + a + " 2000; " + a + " 3000; ");
    said.clear();
    rig.leader.touch(one);
    rig.leader.touch(one);
    pass(100);
    CHECK(said == a + " 0; ");
    CHECK(rig.leader.counters().sessions_expired == 0);
    rig.settle();
    CHECK(rig.machine.find_session(one)->silent_ms == 0);
    CHECK(rig.machine.find_session(two)->silent_ms == 2000);
    CHECK(rig.machine.find_session(touched)->silent_ms == 0);
}

TEST_CASE("Z13 a leader goes on from what the log says of silence, and ends nobody at once") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1, 4000), fresh = rig.open(2, 16000);
    const auto pass = [&](int ms) {
        for (int i = 0; i < ms; i += 100) {
            rig.pong(2, rig.leader.pings());
            rig.step(milliseconds(100));
            rig.leader.look_at_sessions(0);
        }
    };
    pass(3900);
    rig.settle();
    REQUIRE(rig.machine.find_session(id)->silent_ms == 3000);
    const SessionId brief = rig.open(3, 400);
    pass(300);
    rig.settle();
    REQUIRE(rig.machine.find_session(brief)->silent_ms == 300);
    REQUIRE(rig.machine.find_session(id) == nullptr);
    rig.leader.stop();
    rig.leader.start(rig.now);
    rig.to_broadcast();
    pass(300);
    rig.settle();
    CHECK(rig.machine.find_session(brief)->silent_ms == 300);  // and not less again
    pass(100);
    rig.settle();
    CHECK(rig.machine.find_session(brief) != nullptr);
    pass(100);
    rig.settle();
    CHECK(rig.machine.find_session(brief) == nullptr);
    CHECK(rig.machine.find_session(fresh)->silent_ms == 4000);
    pass(11400);  // 12,000 of 16,000 are left, and 500 are over
    rig.settle();
    CHECK(rig.machine.find_session(fresh)->silent_ms == 12000);
    pass(200);
    rig.settle();
    CHECK(rig.machine.find_session(fresh) == nullptr);
}

TEST_CASE("Z6 so many ends are under way at once, and the others wait, but they come") {
    Rig rig;
    rig.to_broadcast();
    for (std::uint64_t i = 1; i <= 200; i++) {
        rig.number({}, 0, OpCode::open_session, Rig::open_body(i, 1000));
        if (i % 50 == 0) rig.settle();
    }
    rig.settle();
    REQUIRE(rig.machine.sessions().size() == 200);
    for (int i = 0; i < 15; i++) {
        rig.pong(2, rig.leader.pings());
        rig.step(milliseconds(100));
        rig.leader.look_at_sessions(0);
    }
    CHECK(rig.leader.counters().sessions_expired == 64);
    rig.leader.look_at_sessions(0);
    CHECK(rig.leader.counters().sessions_expired == 64);
    std::size_t rounds = 0;
    for (; rig.machine.sessions().size() > 0 && rounds < 10; rounds++) {
        rig.settle();
        rig.leader.look_at_sessions(0);
    }
    CHECK(rounds == 4);
    CHECK(rig.leader.counters().sessions_expired == 200);
}

TEST_CASE("touches in parts: a list is confirmed when all of its parts have come") {
    Rig rig;
    rig.to_broadcast();
    const auto part = [&](std::uint64_t touch, std::uint64_t offset, std::uint64_t total) {
        Message pong = rig.from(2, MessageType::pong);
        pong.sequence = rig.leader.pings();
        pong.touch = touch, pong.offset = offset, pong.total = total;
        rig.tell(pong);
    };
    const auto confirmed = [&] {
        for (int i = 0; i < 3; i++) {
            rig.forget();
            rig.step(rig.timing.heartbeat);
            rig.pong(3, rig.leader.pings());
        }
        rig.forget();
        rig.step(rig.timing.heartbeat);
        REQUIRE(rig.count(MessageType::ping) == 1);
        return rig.take(MessageType::ping)[0].message.confirmed;
    };
    rig.follower_info(3);
    part(7, 0, 3);
    part(7, 2, 3);
    part(7, 2, 3);
    part(7, 9, 3);
    CHECK(confirmed() < 7);
    part(7, 1, 3);
    CHECK(confirmed() == 7);
}

// A leader whose voter 3 touches, and whose voter 2 makes the quorum of each round.
struct Touches : Rig {
    explicit Touches(std::uint64_t entries = 0) : Rig(entries) {}
    void touch(std::uint64_t number, std::uint64_t nonce = 23, SessionId session = {}) {
        Message message = from(3, MessageType::pong);
        Bytes named;
        if (session != SessionId{}) coord::Writer(named).u64(session.value);
        message.payload = named;
        message.nonce = nonce, message.attempt = nonce;
        message.sequence = leader.pings(), message.touch = number, message.total = 1;
        tell(message);
    }
    // Begins a round. RETURNS what its ping confirms to a peer.
    std::uint64_t round(std::uint32_t peer = 3) {
        forget();
        step(timing.heartbeat);
        REQUIRE(count(MessageType::ping, peer) == 1);
        return take(MessageType::ping, peer)[0].message.confirmed;
    }
    void answer() {
        pong(2, leader.pings());
        step();
    }
};

// A lease says that the session will live so long whoever leads. So what is silent by the log, and
// is heard of, has none until the log says that, and it is committed.
TEST_CASE("Z13 P11 no lease of a session that was silent before the log says that it was heard") {
    Touches rig;
    rig.to_broadcast();
    rig.follower_info(3);
    const SessionId id = rig.open(1, 4000);
    for (int i = 0; i < 15; i++) {
        rig.round();
        rig.answer();
        rig.leader.look_at_sessions(0);
    }
    rig.settle();
    REQUIRE(rig.machine.find_session(id)->silent_ms == 1000);
    rig.touch(1000, 23, id);
    rig.round();     // it began before that is numbered
    rig.leader.look_at_sessions(0);
    rig.answer();
    CHECK(rig.round() < 1000);
    rig.answer();    // this one began after, and it is not committed
    CHECK(rig.round() < 1000);
    rig.ack(2, rig.log.last().zxid, 2);
    rig.answer();
    CHECK(rig.round() == 1000);
}

TEST_CASE("Z13 P11 no lease of a round before the leader heard of its own session again") {
    Touches rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1, 4000);
    for (int i = 0; i < 15; i++) {
        rig.round(2);
        rig.answer();
        rig.leader.look_at_sessions(0);
    }
    rig.settle();
    REQUIRE(rig.machine.find_session(id)->silent_ms == 1000);
    rig.round(2);
    const coord::Time sent_at = rig.now;
    rig.leader.touch(id);  // as the replica does when a round has begun
    rig.answer();
    CHECK(rig.leader.lease_from() < sent_at);
    rig.leader.look_at_sessions(0);
    rig.settle();
    rig.round(2);
    rig.answer();
    CHECK(rig.leader.lease_from() == rig.now);
}

TEST_CASE("touches: a peer that has restarted is confirmed what it has said since, and no more") {
    Touches rig;
    rig.to_broadcast();
    rig.follower_info(3);
    rig.touch(1000);
    rig.round();
    rig.answer();
    CHECK(rig.round() == 1000);
    rig.answer();
    rig.touch(2000);
    rig.round();
    SUBCASE("it comes back with a list, while a round of before is under way") {
        rig.touch(5, 99);
        rig.answer();
        CHECK(rig.round() == 0);
        rig.answer();
        CHECK(rig.round() == 5);
    }
    SUBCASE("it comes back and has not touched anything yet") {
        Message info = rig.from(3, MessageType::follower_info);
        info.epoch = 0, info.nonce = 99, info.attempt = 99;
        rig.tell(info);
        rig.answer();
        for (int i = 0; i < 3; i++) {
            CHECK(rig.round() == 0);
            rig.answer();
        }
    }
}

// The expiry of a session may stand in the history of a voter that has not committed it. Until the
// leader is established, that history may still become everybody's, and the session be over.
TEST_CASE("no lease from a round that began before the leader was established") {
    Touches rig(2);
    rig.to_synchronization();
    rig.pong(2, rig.leader.pings());
    rig.round(2);
    const Time none = rig.leader.lease_from();
    rig.ack(2, Zxid{1, 2});
    rig.step();
    REQUIRE(rig.leader.can_number(rig.machine));
    rig.answer();
    CHECK(rig.leader.lease_from() == none);
    CHECK(rig.round(2) == 0);
    const Time begun = rig.now;
    rig.answer();
    CHECK(rig.leader.lease_from() == begun);
    CHECK(rig.leader.lease_at() == Zxid{1, 2});
    CHECK(rig.round(2) == 1);
}

TEST_CASE("no lease before what stands before its round is committed: an expiry may be there") {
    Touches rig;
    rig.to_broadcast();
    rig.follower_info(3);
    rig.touch(7);
    rig.round();
    rig.answer();
    const Time before = rig.leader.lease_from();
    rig.touch(8);
    rig.number({}, 0, OpCode::open_session, Rig::open_body(1));
    const Zxid zxid = rig.log.last().zxid;
    CHECK(rig.round() == 7);
    const Time begun = rig.now;
    rig.answer();
    CHECK(rig.leader.lease_from() == before);
    CHECK(rig.leader.lease_at() < zxid);
    CHECK(rig.round() == 7);
    rig.ack(2, zxid, 2);
    rig.step();
    CHECK(rig.leader.lease_from() == begun);
    CHECK(rig.leader.lease_at() == zxid);
    CHECK(rig.round() == 8);
    CHECK(rig.take(MessageType::ping, 3)[0].message.commit == zxid);
}

// Each round would push out the one whose answer is just coming.
TEST_CASE("syncs are answered though one comes in each poll, and answers take many polls") {
    Rig rig;
    rig.to_broadcast();
    std::deque<std::pair<Time, std::uint64_t>> under_way;
    std::vector<std::uint64_t> answered;
    bool asked_for_a_poll = false;
    for (std::uint64_t i = 1; i <= 400; i++) {
        rig.leader.request_sync(rig.now, i, rig.out);
        rig.forget();
        rig.step(milliseconds(1));
        const std::vector<Said> pings = rig.take(MessageType::ping);
        if (asked_for_a_poll) CHECK(pings.size() == 1);  // a sync that waits asks for none
        asked_for_a_poll = rig.leader.next_deadline(rig.now) <= rig.now;
        for (const Said& ping : pings) {
            under_way.emplace_back(rig.now + milliseconds(40), ping.message.sequence);
        }
        for (; !under_way.empty() && under_way.front().first <= rig.now; under_way.pop_front()) {
            rig.pong(2, under_way.front().second);
        }
        std::uint64_t sequence = 0;
        Zxid zxid;
        while (rig.leader.take_own_synced(sequence, zxid)) answered.push_back(sequence);
    }
    std::sort(answered.begin(), answered.end());
    REQUIRE(answered.size() > 300);  // the others are of the last two round trips
    for (std::size_t i = 0; i < answered.size(); i++) CHECK(answered[i] == i + 1);
}

TEST_CASE("a sync is answered by a round begun after it, and by a quorum alone") {
    Rig rig;
    rig.to_broadcast();
    rig.step(rig.timing.heartbeat);
    const std::uint64_t before = rig.leader.pings();
    Message sync = rig.from(2, MessageType::sync);
    sync.sequence = 55;
    rig.tell(sync);
    rig.leader.request_sync(rig.now, 66, rig.out);
    rig.pong(2, before);  // of a round that was under way
    rig.leader.advance(rig.now, rig.out);
    rig.collect();
    std::uint64_t own = 0;
    Zxid zxid;
    CHECK(rig.count(MessageType::synced) == 0);
    CHECK_FALSE(rig.leader.take_own_synced(own, zxid));
    rig.step();  // the round begins at once
    CHECK(rig.leader.pings() == before + 1);
    CHECK(rig.count(MessageType::synced) == 0);
    rig.pong(2, before + 2);  // of a round that there is not
    rig.step();
    CHECK(rig.count(MessageType::synced) == 0);
    rig.pong(2, before + 1);
    rig.step();
    REQUIRE(rig.count(MessageType::synced) == 1);
    CHECK(rig.take(MessageType::synced)[0].message.sequence == 55);
    CHECK(rig.take(MessageType::synced)[0].message.zxid == rig.leader.committed());
    CHECK(rig.leader.take_own_synced(own, zxid));
    CHECK(own == 66);
    CHECK_FALSE(rig.leader.take_own_synced(own, zxid));
}

TEST_CASE("a sync before the leader is established is not remembered") {
    Rig rig;
    rig.to_synchronization();
    rig.leader.request_sync(rig.now, 1, rig.out);
    rig.pong(2, rig.leader.pings());
    rig.step(rig.timing.heartbeat);
    std::uint64_t own = 0;
    Zxid zxid;
    CHECK_FALSE(rig.leader.take_own_synced(own, zxid));
}

TEST_CASE("no message before its phase, and none of an epoch that is not durable, is taken") {
    Rig rig;
    for (unsigned type = 1; type <= coord::message_type_last; type++) {
        if (type == static_cast<unsigned>(MessageType::follower_info)) continue;
        CHECK_FALSE(rig.tell(rig.from(2, static_cast<MessageType>(type))));
    }
    CHECK(rig.leader.phase() == Phase::discovery);
    CHECK(rig.said.empty());
}

TEST_CASE("Z21 whom it may hand over to: who counts, is in step and was heard of lately") {
    Rig rig;
    CHECK(rig.leader.hand_over(rig.now, PeerId{2}) == Errc::not_leading);
    rig.lead_two();
    CHECK(rig.leader.hand_over(rig.now, PeerId{3}) == Errc::no_successor);  // it was not met yet
    CHECK(rig.leader.hand_over(rig.now, PeerId{1}) == Errc::bad_arguments);
    CHECK(rig.leader.hand_over(rig.now, PeerId{4}) == Errc::bad_arguments);
    rig.leader.forget(PeerId{2});
    CHECK(rig.leader.hand_over(rig.now, PeerId{2}) == Errc::no_successor);
    CHECK(rig.leader.hand_over(rig.now, {}) == Errc::no_successor);
    rig.storages[3] = 333;  // not the one that was admitted
    rig.join(3);
    rig.heard(2);
    CHECK(rig.leader.hand_over(rig.now, PeerId{3}) == Errc::no_successor);
    CHECK(rig.leader.hand_over(rig.now, {}) == Errc::ok);
    CHECK(rig.leader.successor() == PeerId{2});
    CHECK_FALSE(rig.leader.is_numbering());
    CHECK_FALSE(rig.leader.can_number(rig.machine));
    CHECK_FALSE(rig.leader.is_admission_due(rig.now));
}

TEST_CASE("Z21 of several it chooses who has most, and of those who was heard of last") {
    Rig rig;
    rig.lead_two();
    rig.join(3), rig.step();
    rig.heard(2), rig.heard(3);
    rig.step(milliseconds(1));
    rig.heard(2);
    REQUIRE(rig.leader.hand_over(rig.now, {}) == Errc::ok);
    CHECK(rig.leader.successor() == PeerId{2});  // though 3 has the higher id
    rig.step(rig.timing.silence);
    REQUIRE(rig.leader.successor() == PeerId{});
    rig.heard(2), rig.heard(3);
    rig.number({}, 0, OpCode::open_session, Rig::open_body(1));
    rig.step();
    rig.say(3, MessageType::ack);
    rig.step();
    rig.heard(2);
    REQUIRE(rig.leader.hand_over(rig.now, {}) == Errc::ok);
    CHECK(rig.leader.successor() == PeerId{3});
}

TEST_CASE("Z21 it is asked again each retry, until the time is over: then requests are numbered") {
    Rig rig;
    rig.lead_two();
    REQUIRE(rig.leader.hand_over(rig.now, PeerId{2}) == Errc::ok);
    CHECK(rig.leader.next_deadline(rig.now) <= rig.now);
    const Time end = rig.now + rig.timing.silence;
    rig.step();
    REQUIRE(rig.count(MessageType::hand_over) == 1);
    const Message stand = rig.take(MessageType::hand_over)[0].message;
    CHECK(stand.zxid == rig.log.last().zxid);
    CHECK(stand.leader == PeerId{2});
    CHECK(stand.epoch == rig.leader.epoch());
    CHECK(rig.leader.next_deadline(rig.now) <= rig.now + rig.timing.retry());
    rig.step(rig.timing.retry() - coord::nanoseconds(1));
    CHECK(rig.count(MessageType::hand_over) == 1);
    rig.step(coord::nanoseconds(1));
    CHECK(rig.count(MessageType::hand_over) == 2);
    while (rig.now + rig.timing.retry() < end) rig.heard(2), rig.step(rig.timing.retry());
    CHECK(rig.leader.successor() == PeerId{2});
    CHECK_FALSE(rig.leader.can_number(rig.machine));
    rig.heard(2), rig.step(end - rig.now);
    CHECK(rig.leader.successor() == PeerId{});
    CHECK(rig.leader.can_number(rig.machine));
    CHECK(rig.leader.counters().hand_overs_failed == 1);
    CHECK(std::string(rig.leader.hand_over_flaw()) == "it did not stand in time");
    Message stands = rig.speak(2, MessageType::hand_over);  // too late
    stands.sequence = stand.sequence, stands.phase = 2;
    CHECK(rig.tell(stands));
    CHECK_FALSE(rig.leader.has_handed_over());
    CHECK(rig.leader.resignation() == nullptr);
}

TEST_CASE("Z21 what counts as an answer: of whom it asked, of this asking, and nothing else") {
    Rig rig;
    rig.lead_two();
    rig.join(3), rig.step();
    rig.heard(3);
    REQUIRE(rig.leader.hand_over(rig.now, PeerId{2}) == Errc::ok);
    Message stands = rig.speak(2, MessageType::hand_over);
    stands.phase = 2;
    for (const std::uint64_t sequence : {0u, 1u, 2u, 3u}) {
        stands.sequence = sequence;
        CHECK(rig.tell(stands));  // it has not been asked yet
        CHECK_FALSE(rig.leader.has_handed_over());
    }
    rig.step();
    REQUIRE(rig.count(MessageType::hand_over) == 1);
    const std::uint64_t asked = rig.take(MessageType::hand_over)[0].message.sequence;
    for (const std::uint64_t sequence : {asked - 1, asked + 1, std::uint64_t{0}}) {
        stands.sequence = sequence;
        CHECK(rig.tell(stands));
        CHECK_FALSE(rig.leader.has_handed_over());
    }
    Message other = rig.speak(3, MessageType::hand_over);
    other.phase = 2, other.sequence = asked;
    CHECK(rig.tell(other));
    CHECK_FALSE(rig.leader.has_handed_over());
    stands.sequence = asked, stands.epoch -= 1;
    CHECK_FALSE(rig.tell(stands));
    CHECK_FALSE(rig.leader.has_handed_over());
    for (const unsigned phase : {0u, 1u, 4u, 255u}) {
        Message odd = rig.speak(2, MessageType::hand_over);
        odd.sequence = asked, odd.phase = static_cast<std::uint8_t>(phase);
        CHECK(rig.tell(odd));
        CHECK_FALSE(rig.leader.has_handed_over());
        CHECK(rig.leader.successor() == PeerId{2});
    }
    stands.epoch += 1;
    CHECK(rig.tell(stands));
    CHECK(rig.leader.has_handed_over());
    rig.forget();
    rig.leader.send_on(rig.out), rig.collect();
    REQUIRE(rig.count(MessageType::hand_over, 3) == 1);
    CHECK(rig.take(MessageType::hand_over, 3)[0].message.leader == PeerId{2});
    CHECK(rig.count(MessageType::hand_over, 2) == 0);
    CHECK_FALSE(rig.leader.can_number(rig.machine));
    rig.leader.stop();
    CHECK(rig.leader.successor() == PeerId{});
}

TEST_CASE("Z21 another life, or storage, under that id before its answer came: it stays") {
    Rig rig;
    rig.lead_two();
    rig.join(3), rig.step();
    REQUIRE(rig.leader.hand_over(rig.now, PeerId{2}) == Errc::ok);
    rig.step();
    REQUIRE(rig.count(MessageType::hand_over) == 1);
    Message stands = rig.speak(2, MessageType::hand_over);
    stands.sequence = rig.take(MessageType::hand_over)[0].message.sequence, stands.phase = 2;
    rig.lives[2] = 29;
    SUBCASE("with its storage") {}
    SUBCASE("with another one") { rig.storages[2] = 222; }
    rig.say(2, MessageType::follower_info);
    CHECK(rig.tell(stands));
    CHECK_FALSE(rig.leader.has_handed_over());
    rig.heard(3), rig.step();
    CHECK(rig.leader.successor() == PeerId{});
    CHECK(std::string(rig.leader.hand_over_flaw()) == "it is not in step any more");
}

TEST_CASE("a storage that fails while it leads is reported") {
    Rig rig;
    rig.to_broadcast();
    rig.disk.fail();
    rig.number({}, 0, OpCode::open_session, Rig::open_body(1));
    CHECK(rig.leader.error() == Errc::storage_failed);
}

TEST_CASE("one voter alone establishes itself without a message") {
    coord::MemoryStorage disk;
    coord::Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    const coord::Voters voters({PeerId{1}});
    const coord::Limits limits;
    Leader leader(PeerId{1}, voters, {}, log, limits, 1024);
    coord::Machine machine(limits, 1);
    coord::Outbox out(PeerId{1}, 1, 1);
    leader.start(Time{0});
    for (int i = 0; i < 4; i++) {
        leader.send(Time{0}, machine, out);
        REQUIRE(log.flush() == Errc::ok);
        REQUIRE(log.refresh_durable() == Errc::ok);
        leader.advance(Time{0}, out);
    }
    CHECK(leader.is_established());
    CHECK(out.empty());
    CHECK(leader.epoch() == 1);
    CHECK(leader.synced(Time{0}) == 1);
}

TEST_CASE("Z7 a promise counts with the storage that is in the table, and with no other") {
    Rig rig;
    rig.founded(), rig.know();
    rig.storages[2] = 999;
    rig.say(2, MessageType::follower_info);
    rig.step();
    CHECK(rig.phase() == Phase::discovery);  // one of three
    rig.say(3, MessageType::follower_info);
    rig.step();
    REQUIRE(rig.phase() == Phase::promise);
    rig.say(2, MessageType::ack_epoch);
    rig.step();
    CHECK(rig.phase() == Phase::promise);
    rig.say(3, MessageType::ack_epoch);
    rig.step();
    CHECK(rig.phase() == Phase::synchronization);
    CHECK(rig.count(MessageType::diff, 2) == 1);  // it learns all the same
    rig.say(2, MessageType::ack);
    rig.step();
    CHECK(rig.phase() == Phase::synchronization);  // nor does its ack count
    rig.say(3, MessageType::ack);
    rig.step();
    CHECK(rig.leader.is_established());
    CHECK(rig.leader.synced(rig.now) == 2);
}

TEST_CASE("Z7 what the log says of a voter counts, applied or not, and its end above all") {
    for (const std::uint64_t then : {0u, 202u}) {
        CAPTURE(then);
        Rig rig;
        rig.founded();
        rig.admit(Zxid{1, 3}, {{PeerId{2}, 0}});
        if (then != 0) rig.admit(Zxid{1, 4}, {{PeerId{2}, then}});
        rig.know();
        rig.say(2, MessageType::follower_info);
        rig.step();
        CHECK(rig.phase() == Phase::discovery);  // the old one
        rig.storages[2] = 202, rig.lives[2] = 222;
        rig.say(2, MessageType::follower_info);
        rig.step();
        CHECK((rig.phase() == Phase::promise) == (then != 0));
    }
}

TEST_CASE("Z7 acknowledgements belong to a storage: another one under the id has none of them") {
    Rig rig;
    rig.lead_two();
    rig.join(3);
    rig.disk.hold_flushes();  // its own disk does not help
    rig.number({}, 0, OpCode::open_session, Rig::open_body(1));
    const Zxid before = rig.leader.committed();
    rig.step();
    rig.say(3, MessageType::ack);
    rig.storages[3] = 777, rig.lives[3] = 333;
    rig.say(3, MessageType::follower_info);
    rig.say(2, MessageType::ack);
    rig.step();
    CHECK(rig.leader.committed() == before);
    rig.storages[3] = 103, rig.lives[3] = 334;  // the right one again: it has to say it again
    rig.say(3, MessageType::follower_info);
    rig.step();
    CHECK(rig.leader.committed() == before);
    rig.say(3, MessageType::ack_epoch);
    rig.say(3, MessageType::ack);
    rig.step();
    CHECK(rig.leader.committed() == rig.log.last().zxid);
}

TEST_CASE("Z7 acknowledgements of a life that has not said whose it is do not count") {
    Rig rig;
    rig.lead_two();
    rig.disk.hold_flushes();
    rig.join(3);
    rig.number({}, 0, OpCode::open_session, Rig::open_body(1));
    const Zxid before = rig.leader.committed();
    rig.step();
    rig.say(2, MessageType::ack);
    rig.lives[3] = 333;
    rig.say(3, MessageType::ack);  // of nobody
    rig.step();
    CHECK(rig.leader.committed() == before);
    rig.heard(3);                  // met, and asked
    rig.say(3, MessageType::ack);
    rig.step();
    CHECK(rig.leader.committed() == before);
    Message told = rig.speak(3, MessageType::ack_epoch);
    told.attempt = 6;
    rig.tell(told);
    rig.say(3, MessageType::ack);
    rig.step();
    CHECK(rig.leader.committed() == rig.log.last().zxid);
}

TEST_CASE("Z7 a round is answered by voters that count, and so is the question who is in reach") {
    Rig rig;
    rig.lead_two();
    rig.storages[3] = 999;
    rig.join(3);
    rig.leader.request_sync(rig.now, 55, rig.out);
    rig.step();
    std::uint64_t own = 0;
    Zxid zxid;
    rig.heard(3);
    rig.step();
    CHECK_FALSE(rig.leader.take_own_synced(own, zxid));
    rig.pong(2, rig.leader.pings());
    rig.step();
    CHECK(rig.leader.take_own_synced(own, zxid));
    for (int i = 0; i < 8 && rig.leader.resignation() == nullptr; i++) {
        rig.heard(3);
        rig.step(rig.timing.silence / 5);
    }
    REQUIRE(rig.leader.resignation() != nullptr);
    CHECK(std::string(rig.leader.resignation()) == "no quorum is in reach");
}

TEST_CASE("Z7 a leader whose own storage is not in the table asks nobody for a promise") {
    Rig rig;
    REQUIRE(rig.log.accept_epoch(1, PeerId{1}) == Errc::ok);
    rig.admit(Zxid{1, 1}, {{PeerId{1}, 1}, {PeerId{2}, 102}, {PeerId{3}, 103}});
    rig.admit(Zxid{1, 2}, {});
    rig.know();
    CHECK(std::string(rig.leader.barred()) == "this storage has not been admitted");
    rig.say(2, MessageType::follower_info), rig.say(3, MessageType::follower_info);
    rig.step(rig.timing.silence);
    CHECK(rig.phase() == Phase::discovery);
    CHECK(rig.leader.resignation() == nullptr);  // not at once: it may be elected again at once
    rig.say(2, MessageType::follower_info), rig.say(3, MessageType::follower_info);
    rig.step(milliseconds(1));
    REQUIRE(rig.leader.resignation() != nullptr);
    CHECK(std::string(rig.leader.resignation()) == rig.leader.barred());
    CHECK(rig.log.epochs().accepted == 1);
}

TEST_CASE("Z8 an ensemble is founded by all, who all may, before anything else is numbered") {
    Rig rig;
    rig.know();
    rig.say(2, MessageType::follower_info);
    rig.step();
    CHECK(rig.phase() == Phase::discovery);  // a majority
    SUBCASE("one may not") {
        rig.no_founders.insert(3);
        rig.say(3, MessageType::follower_info);
        rig.step();
        CHECK(rig.phase() == Phase::discovery);
        for (int i = 0; i < 12; i++) {
            rig.say(2, MessageType::follower_info), rig.say(3, MessageType::follower_info);
            rig.step(rig.timing.silence / 5);
        }
        REQUIRE(rig.leader.resignation() != nullptr);
        CHECK(std::string(rig.leader.resignation()) ==
              "not all voters are here and may found an ensemble");
        return;
    }
    rig.say(3, MessageType::follower_info);
    rig.step();
    REQUIRE(rig.phase() == Phase::promise);
    rig.say(2, MessageType::ack_epoch);
    rig.step();
    CHECK(rig.phase() == Phase::promise);
    SUBCASE("one has a history: then it is not new") {
        Message older = rig.speak(3, MessageType::ack_epoch);
        older.zxid = Zxid{1, 1}, older.crc = 1, older.current_epoch = 1;
        rig.tell(older);
        rig.step();
        CHECK(rig.phase() == Phase::promise);
        return;
    }
    rig.say(3, MessageType::ack_epoch);
    rig.step();
    REQUIRE(rig.phase() == Phase::synchronization);
    REQUIRE(rig.log.last().zxid == Zxid{1, 1});
    REQUIRE(rig.log.admits().size() == 1);
    rig.say(2, MessageType::ack);
    rig.step();
    CHECK(rig.phase() == Phase::synchronization);  // all have to have it
    rig.say(3, MessageType::ack);
    rig.step();
    REQUIRE(rig.leader.is_established());
    REQUIRE(rig.leader.can_number(rig.machine));
    CHECK(rig.machine.voters().storage_of(PeerId{2}) == 102);
    CHECK(rig.machine.voters().is_founding());
    REQUIRE(rig.leader.is_admission_due(rig.now));
    rig.leader.admit(rig.now, 1);
    CHECK_FALSE(rig.leader.is_admission_due(rig.now));
    CHECK(rig.log.last().zxid == Zxid{1, 2});
    rig.step();
    rig.say(3, MessageType::ack);
    rig.step();
    CHECK(rig.leader.committed() == Zxid{1, 2});  // a majority is enough again
    CHECK_FALSE(rig.machine.voters().is_founding());
    CHECK(rig.leader.counters().admissions == 2);
}

TEST_CASE("Z8 a founding that others have not heard of, or lost, is done once more by all") {
    for (const bool same : {false, true}) {
        CAPTURE(same);
        Rig rig;
        REQUIRE(rig.log.accept_epoch(1, PeerId{1}) == Errc::ok);
        rig.admit(Zxid{1, 1}, rig.founders());
        rig.know();
        if (!same) rig.storages[2] = 222;
        rig.say(2, MessageType::follower_info);
        rig.step();
        CHECK(rig.phase() == Phase::discovery);
        rig.say(3, MessageType::follower_info);
        rig.step();
        rig.say(2, MessageType::ack_epoch), rig.say(3, MessageType::ack_epoch);
        rig.step();
        REQUIRE(rig.phase() == Phase::synchronization);
        CHECK(rig.log.last().zxid == (same ? Zxid{1, 1} : Zxid{2, 1}));
        rig.say(2, MessageType::ack);
        rig.step();
        CHECK(rig.phase() == Phase::synchronization);
        SUBCASE("all have it") {
            rig.say(3, MessageType::ack);
            rig.step();
            CHECK(rig.leader.is_established());
            CHECK(rig.machine.voters().storage_of(PeerId{2}) == rig.storages[2]);
        }
        SUBCASE("one changes its storage before that") {
            rig.storages[3] = 333, rig.lives[3] = 33;
            rig.say(3, MessageType::follower_info);
            CHECK(rig.leader.resignation() != nullptr);
        }
    }
}

TEST_CASE("Z9 a storage takes the place of another in two steps, when it is in step") {
    Rig rig;
    rig.lead_two();
    rig.storages[3] = 303;
    rig.say(3, MessageType::follower_info), rig.say(3, MessageType::ack_epoch);
    rig.pass_silence();
    CHECK_FALSE(rig.leader.is_admission_due(rig.now));  // it has acknowledged nothing
    Message behind = rig.speak(3, MessageType::ack);
    behind.zxid = Zxid{1, 1};
    rig.tell(behind);
    CHECK_FALSE(rig.leader.is_admission_due(rig.now));  // not all of the initial history
    rig.say(3, MessageType::ack);
    REQUIRE(rig.leader.is_admission_due(rig.now));
    rig.leader.admit(rig.now, 1);
    const Zxid out = rig.log.last().zxid;
    CHECK_FALSE(rig.leader.is_admission_due(rig.now));  // not before that is committed
    rig.leader.admit(rig.now, 1);
    CHECK(rig.log.last().zxid == out);
    rig.step();
    rig.say(3, MessageType::ack);
    rig.step();
    CHECK(rig.leader.committed() < out);  // not by the one whom it is about
    rig.say(2, MessageType::ack);
    rig.step();
    CHECK(rig.leader.committed() == out);
    CHECK(rig.machine.voters().knows(PeerId{3}));
    CHECK(rig.machine.voters().storage_of(PeerId{3}) == 0);
    REQUIRE(rig.leader.is_admission_due(rig.now));
    rig.leader.admit(rig.now, 1);
    rig.step();
    rig.say(3, MessageType::ack);  // it has all, durably: it counts in the table that there is now
    rig.step();
    CHECK(rig.leader.committed() == rig.log.last().zxid);
    CHECK(rig.machine.voters().storage_of(PeerId{3}) == 303);
    CHECK_FALSE(rig.leader.is_admission_due(rig.now));
    CHECK(rig.leader.synced(rig.now) == 3);
    rig.leader.audit(rig.machine);
}

TEST_CASE("Z9 a life that has just been met is not admitted: it may be beside the voter") {
    Rig rig;
    rig.lead_two();
    rig.storages[3] = 303;
    rig.join(3);
    rig.step(rig.timing.silence);
    rig.heard(3);
    CHECK_FALSE(rig.leader.is_admission_due(rig.now));
    rig.pong(2, rig.leader.pings());
    rig.step(milliseconds(1));
    CHECK(rig.leader.is_admission_due(rig.now));
    rig.storages[3] = 103, rig.lives[3] = 99;  // the voter itself
    rig.join(3);
    CHECK_FALSE(rig.leader.is_admission_due(rig.now));
}

// Else a storage that is gone would take the place of the one that has come after it.
TEST_CASE("Z9 a life that is over, and whose last messages come late, is not admitted") {
    Rig rig;
    rig.lead_two();
    rig.storages[3] = 303;
    rig.join(3);
    const std::uint64_t asked = rig.leader.pings();
    for (int i = 0; i < 8; i++) {
        rig.pong(2, rig.leader.pings());
        rig.step(rig.timing.silence / 5);
        Message late = rig.speak(3, MessageType::pong);
        late.sequence = asked, late.phase = 0;
        rig.tell(late);
        rig.say(3, MessageType::ack);
    }
    REQUIRE(rig.leader.pings() > asked);
    CHECK_FALSE(rig.leader.is_admission_due(rig.now));
    rig.heard(3);
    CHECK(rig.leader.is_admission_due(rig.now));
}

TEST_CASE("Z10 a storage that reports less than it has acknowledged is refused, life by life") {
    Rig rig;
    rig.lead_two();
    rig.join(3);
    const SessionId id = rig.open(1);
    rig.say(3, MessageType::ack);
    CHECK(id != SessionId{});
    const auto report = [&](std::uint64_t life, Zxid has, std::uint64_t sequence) {
        rig.lives[3] = life;
        rig.say(3, MessageType::follower_info);
        rig.forget();
        Message message = rig.speak(3, MessageType::ack_epoch);
        message.zxid = has, message.crc = rig.log.crc_at(has), message.sequence = sequence;
        rig.tell(message);
        return rig.count(MessageType::refused, 3);
    };
    CHECK(report(301, Zxid{1, 2}, 0) == 0);  // said before it had acknowledged more
    CHECK(report(302, rig.log.last().zxid, UINT64_MAX) == 0);
    CHECK(rig.leader.counters().refusals == 0);
    REQUIRE(report(303, Zxid{1, 2}, UINT64_MAX) == 1);
    const Message refused = rig.take(MessageType::refused, 3)[0].message;
    CHECK(refused.confirmed == 303);
    CHECK(static_cast<coord::Refusal>(refused.phase) == coord::Refusal::rolled_back);
    rig.say(3, MessageType::ack);  // it is told again, and counts for nothing
    CHECK(rig.count(MessageType::refused, 3) == 2);
    CHECK(rig.leader.synced(rig.now) == 2);
    CHECK(rig.leader.counters().refusals == 1);
    CHECK(report(304, rig.log.last().zxid, UINT64_MAX) == 0);  // another image, with everything
    rig.say(3, MessageType::ack);
    CHECK(rig.leader.synced(rig.now) == 3);
}

TEST_CASE("Z10 two lives that answer in turn are both alive; one after the other is a restart") {
    Rig rig;
    rig.lead_two();
    rig.join(3);
    const auto answer = [&](std::uint64_t life, std::uint64_t ping) {
        Message message = rig.speak(3, MessageType::pong);
        message.nonce = life, message.sequence = ping, message.phase = 0;
        rig.tell(message);
        return rig.count(MessageType::refused, 3);
    };
    const auto beat = [&] {
        rig.pong(2, rig.leader.pings());
        rig.step(rig.timing.heartbeat);
        return rig.leader.pings();
    };
    const std::uint64_t first = beat();
    CHECK(answer(23, first) == 0);
    const std::uint64_t second = beat();
    CHECK(answer(24, second) == 0);   // it has restarted
    CHECK(answer(23, second) == 0);   // an old answer
    CHECK(answer(23, first) == 0);
    const std::uint64_t third = beat();
    CHECK(answer(24, third) == 0);
    CHECK(answer(23, UINT64_MAX) == 0);  // to no ping of ours
    CHECK(rig.leader.counters().refusals == 0);
    REQUIRE(answer(23, third) == 1);  // sent when the other one had been there
    CHECK(rig.leader.counters().refusals == 1);
    const std::uint64_t refused = rig.take(MessageType::refused, 3)[0].message.confirmed;
    CHECK((refused == 23 || refused == 24));
}

TEST_CASE("hostile learners: any message with any field never trips an assertion") {
    for (std::uint64_t seed = 1; seed <= 20; seed++) {
        CAPTURE(seed);
        coord::Rng rng(support::seed + seed);
        Rig rig(seed % 7 == 0 ? 0 : seed % 4);
        if (seed % 7 == 0) rig.founded();
        if (seed % 7 == 0) rig.know();
        if (seed % 7 == 0) rig.storages[2] = rng.chance(500) ? 102 : 9;
        if (seed % 7 == 0) rig.say(2, MessageType::follower_info), rig.step();
        if (seed % 7 == 0) rig.say(2, MessageType::ack_epoch), rig.step();
        if (seed % 7 == 0) rig.say(2, MessageType::ack), rig.step();
        if (seed % 7 != 0 && seed % 3 == 0) rig.to_promise();
        if (seed % 7 != 0 && seed % 3 == 1) rig.to_synchronization();
        if (seed % 7 != 0 && seed % 3 == 2) rig.to_broadcast();
        const auto any = [&]() -> std::uint64_t {
            switch (rng.below(6)) {
                case 0: return 0;
                case 1: return UINT64_MAX;
                case 2: return rng.below(8);
                case 3: return rig.log.last().zxid.value;
                case 4: return rig.leader.pings();
                default: return rng.next();
            }
        };
        for (int i = 0; i < 2000; i++) {
            const Bytes payload(rng.below(60), static_cast<char>(rng.next()));
            Message m = rig.from(static_cast<std::uint32_t>(rng.below(5)),
                                 static_cast<MessageType>(1 + rng.below(20)));
            m.nonce = rng.chance(800) ? m.nonce : any(), m.attempt = any();
            if (rng.chance(200)) m.epoch = static_cast<std::uint32_t>(any());
            m.leader = PeerId{static_cast<std::uint32_t>(any())};
            m.accepted_epoch = rng.chance(990) ? 0 : static_cast<std::uint32_t>(any());
            m.current_epoch = static_cast<std::uint32_t>(any()), m.zxid = Zxid{any()};
            m.crc = static_cast<std::uint32_t>(any()), m.commit = Zxid{any()};
            m.storage = rng.chance(500) ? 102 : any();
            m.sequence = any(), m.touch = any(), m.offset = any(), m.total = any();
            m.phase = static_cast<std::uint8_t>(rng.below(4)), m.payload = payload;
            rig.tell(m);
            if (rng.chance(200)) rig.step(milliseconds(static_cast<std::int64_t>(rng.below(30))));
            if (rig.leader.can_number(rig.machine)) {
                rig.leader.take_requests([&](const Txn& request) {
                    rig.leader.number(1, rig.machine, request);
                });
                const Bytes open = Rig::open_body(rng.next());
                if (rng.chance(20)) rig.number({}, 0, OpCode::open_session, open);
            }
            rig.forget();
            if (rig.leader.resignation() == nullptr) continue;
            rig.leader.stop();
            rig.leader.start(rig.now);
        }
    }
}


TEST_CASE("Z13 P11 a list that came before the leader knew the sessions gives no lease") {
    Touches rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1, 4000);
    for (int i = 0; i < 35; i++) {
        rig.round(2);
        rig.answer();
        rig.leader.look_at_sessions(0);
    }
    rig.settle();
    REQUIRE(rig.machine.find_session(id)->silent_ms == 3000);
    rig.leader.stop();
    rig.leader.start(rig.now);
    rig.follower_info(3);
    rig.to_synchronization();
    rig.step(milliseconds(100));
    rig.touch(500, 23, id);              // the replica of the session is in reach again
    rig.ack(2, rig.log.last().zxid);
    rig.step();
    REQUIRE(rig.leader.is_established());
    rig.ack(2, rig.log.last().zxid, 2);
    REQUIRE(rig.leader.can_number(rig.machine));
    std::uint64_t confirmed = 0;
    for (int i = 0; i < 20; i++) {      // what 3 says is lost, what it is told is not
        confirmed = (std::max)(confirmed, rig.round(3));
        rig.answer();
        rig.leader.look_at_sessions(0);
        rig.settle();
        if (rig.machine.find_session(id) == nullptr) break;
    }
    CHECK(rig.machine.find_session(id) == nullptr);
    CHECK(confirmed != 500);
}

TEST_CASE("M9 Z13 a timeout below Timing::silence, and a new leader: no silence that was none") {
    Touches rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1, 200);
    rig.leader.stop();
    rig.leader.start(rig.now);
    rig.to_broadcast();
    for (int i = 0; i < 3; i++) {
        rig.pong(2, rig.leader.pings());
        rig.step(milliseconds(50));
        rig.leader.look_at_sessions(0);
        rig.settle();
        const std::uint32_t passed_ms = static_cast<std::uint32_t>(i + 1) * 50;
        CHECK(rig.machine.find_session(id)->silent_ms <= passed_ms);
    }
}

TEST_CASE("Z13 ends that clients ask for keep nobody alive") {
    Rig rig;
    rig.to_broadcast();
    std::vector<SessionId> busy;
    const SessionId dead = rig.open(1, 1000);
    std::uint64_t nonce = 2;
    for (int i = 0; i < 64; i++) busy.push_back(rig.open(nonce++, 60000));
    for (int k = 0; k < 100; k++) {      // 10 s; 64 sessions end and 64 begin each 100 ms
        for (const SessionId id : busy) {
            rig.number(id, 1, OpCode::close_session, BytesView("\0", 1));
        }
        rig.pong(2, rig.leader.pings());
        rig.step(milliseconds(100));
        rig.leader.look_at_sessions(0);
        rig.settle();
        busy.clear();
        for (int i = 0; i < 64; i++) busy.push_back(rig.open(nonce++, 60000));
    }
    CHECK(rig.machine.find_session(dead) == nullptr);
}

TEST_CASE("Z13 M8 who is attached, and silent again, has that in the log again") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1, 4000);
    const auto pass = [&](int ms) {
        for (int i = 0; i < ms; i += 100) {
            rig.pong(2, rig.leader.pings());
            rig.step(milliseconds(100));
            rig.leader.look_at_sessions(0);
        }
    };
    pass(3500);
    rig.settle();
    REQUIRE(rig.machine.find_session(id)->silent_ms == 3000);
    Bytes body;
    coord::Writer(body).u64(77);
    rig.number(id, coord::next_holding(0), OpCode::attach_session, body);
    rig.settle();
    REQUIRE(rig.machine.find_session(id)->silent_ms == 0);
    pass(3500);
    rig.settle();
    CHECK(rig.machine.find_session(id)->silent_ms == 3000);
}

// -- Observers -----------------------------------------------------------------------------------

TEST_CASE("Z15 nobody is taken on to observe before the leader is established") {
    Rig rig(3);
    const auto asks = [&] {
        Message message = rig.from(4, MessageType::follower_info);
        message.epoch = 0;
        const bool taken = rig.tell(message);
        rig.step(milliseconds(60));
        return taken;
    };
    CHECK_FALSE(asks());
    rig.to_promise();
    CHECK_FALSE(asks());
    rig.ack_epoch(2, rig.log.last().zxid, rig.log.last().crc, 1);
    rig.step();
    REQUIRE(rig.leader.phase() == Phase::synchronization);
    CHECK_FALSE(asks());
    for (const Said& one : rig.said) CHECK(one.message.to != PeerId{4});
    CHECK(rig.leader.observers() == 0);
    rig.ack(2, rig.log.last().zxid);
    rig.step();
    REQUIRE(rig.leader.is_established());
    CHECK(asks());
    CHECK(rig.leader.observers() == 1);
    CHECK(rig.count(MessageType::leader_info, 4) >= 1);
}

TEST_CASE("Z15 who has not asked to observe is not listened to") {
    Rig rig;
    rig.to_broadcast();
    for (const MessageType type :
         {MessageType::ack_epoch, MessageType::ack, MessageType::pong, MessageType::request,
          MessageType::sync, MessageType::chunk_request, MessageType::notification}) {
        CHECK_FALSE(rig.tell(rig.from(4, type)));
    }
    for (const std::uint32_t id : {0u, 1u}) {
        Message message = rig.from(id, MessageType::follower_info);
        message.epoch = 0;
        CHECK_FALSE(rig.tell(message));
    }
    rig.step(milliseconds(200));
    CHECK(rig.leader.observers() == 0);
    for (const Said& one : rig.said) CHECK(one.message.to != PeerId{4});
}

TEST_CASE("Z15 an observer is sent what is committed, when it is, and nothing else") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1);
    rig.follower_info(4);
    rig.ack_epoch(4, Zxid{}, 0);
    CHECK(rig.count(MessageType::diff, 4) == 1);
    CHECK(rig.count(MessageType::new_leader, 4) == 1);
    rig.number_some(id, 3);
    const Zxid all = rig.log.last().zxid;
    rig.step();
    CHECK(rig.take_entries() == 1);  // that the session was opened
    rig.step(rig.timing.heartbeat);
    CHECK(rig.take_entries() == 0);
    rig.ack(2, all, 2);
    rig.step();
    CHECK(rig.leader.committed() == all);
    CHECK(rig.count(MessageType::commit, 4) == 0);  // with the entries it is told
    CHECK(rig.take_entries() == 3);
    rig.step(rig.timing.heartbeat * 2);
    CHECK(rig.take_entries() == 0);
}

TEST_CASE("Z15 voters are sent to before observers are") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1);
    rig.follower_info(3), rig.ack_epoch(3, Zxid{}, 0);
    rig.observe(), rig.observe(5);
    rig.ack(3, rig.log.last().zxid, 2);
    rig.number_some(id, 1);
    rig.step();
    rig.ack(2, rig.log.last().zxid, 2);
    rig.step(rig.timing.heartbeat);
    std::vector<std::uint32_t> order;
    for (const Said& one : rig.said) {
        const bool is_of_it = one.message.type == MessageType::proposal ||
                              one.message.type == MessageType::commit;
        if (is_of_it) order.push_back(one.message.to.value);
    }
    CHECK(order == std::vector<std::uint32_t>{2, 3, 2, 3, 4, 5});
}

TEST_CASE("Z15 what observers acknowledge commits nothing") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1);
    rig.observe(), rig.observe(5), rig.observe(6);
    const Zxid before = rig.leader.committed();
    rig.number_some(id, 1);
    rig.step();
    for (const std::uint32_t peer : {4u, 5u, 6u}) rig.ack(peer, rig.log.last().zxid, 2);
    rig.step();
    CHECK(rig.leader.committed() == before);
    CHECK(rig.leader.synced(rig.now) == 2);
    rig.ack(2, rig.log.last().zxid, 2);
    rig.step();
    CHECK(rig.leader.committed() == rig.log.last().zxid);
}

TEST_CASE("Z15 what observers answer confirms no round, and keeps no leader in office") {
    Rig rig;
    rig.to_broadcast();
    rig.observe(), rig.observe(5), rig.observe(6);
    rig.leader.request_sync(rig.now, 70, rig.out);
    rig.step(rig.timing.heartbeat);
    std::uint64_t sequence = 0;
    Zxid zxid;
    for (const std::uint32_t peer : {4u, 5u, 6u}) rig.pong(peer, rig.leader.pings());
    rig.step();
    CHECK_FALSE(rig.leader.take_own_synced(sequence, zxid));
    rig.pong(2, rig.leader.pings());
    rig.step();
    CHECK(rig.leader.take_own_synced(sequence, zxid));
    for (int i = 0; i < 8; i++) {
        for (const std::uint32_t peer : {4u, 5u, 6u}) rig.pong(peer, rig.leader.pings());
        rig.step(rig.timing.silence / 5);
    }
    REQUIRE(rig.leader.resignation() != nullptr);
    CHECK(Bytes(rig.leader.resignation()) == "no quorum is in reach");
}

TEST_CASE("Z15 the end of a leader's reign is the end of its observers") {
    Rig rig;
    rig.to_broadcast();
    rig.observe();
    CHECK(rig.leader.observers() == 1);
    rig.leader.stop();
    CHECK(rig.leader.observers() == 0);
    rig.leader.start(rig.now);
    rig.forget();
    for (int i = 0; i < 3; i++) rig.step(rig.timing.heartbeat);
    for (const Said& one : rig.said) CHECK(one.message.to != PeerId{4});
}

TEST_CASE("what is sent to an observer is a message at a time, and all that came meanwhile") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1);
    rig.observe();
    const auto commit = [&](int count) {
        rig.number_some(id, count);
        rig.step();
        rig.ack(2, rig.log.last().zxid, 2);
        rig.step();
    };
    commit(1);
    CHECK(rig.take_entries(4, false) == 1);
    const Zxid first = rig.log.last().zxid;
    commit(1), commit(1);
    CHECK(rig.take_entries() == 0);  // the answer to the first is under way
    rig.ack(4, first, 2);
    rig.step();
    CHECK(rig.count(MessageType::proposal, 4) == 1);
    CHECK(rig.take_entries(4, false) == 2);
    commit(30);  // more than a message holds: that does not wait
    CHECK(rig.take_entries() > 2);
}

TEST_CASE("Z15 many that are behind get what they lack in slices, each in its turn") {
    constexpr std::uint32_t last = 203;
    Rig rig(200);
    rig.to_broadcast();
    for (std::uint32_t peer = 4; peer <= last; peer++) {
        rig.follower_info(peer);
        rig.ack_epoch(peer, Zxid{}, 0);
    }
    rig.forget();
    std::map<std::uint32_t, std::uint64_t> had;
    std::size_t steps = 0, all = 0;
    while (steps == 0 || rig.leader.next_deadline(rig.now) <= rig.now) {
        rig.step();
        std::size_t bytes = 0;
        for (const Said& one : rig.said) {
            if (one.message.type != MessageType::proposal) continue;
            std::uint64_t& count = had[one.message.to.value];
            CHECK(one.message.zxid.counter() == count);
            for (BytesView left = one.payload; !left.empty(); count++) {
                left.remove_prefix(coord::Reader(left).u32());
            }
            bytes += one.payload.size();
        }
        rig.forget();
        CHECK(bytes <= 1024 * 1024 + 1024);
        all += bytes, steps += 1;
        REQUIRE(steps < 10);
    }
    CHECK(all > 2 * 1024 * 1024);
    for (std::uint32_t peer = 4; peer <= last; peer++) CHECK(had[peer] > 190);
    rig.ack(last, Zxid{1, had[last]});
    rig.step();
    CHECK(rig.count(MessageType::proposal, last) == (had[last] < 200 ? 1 : 0));
}

// The last of those who wait for their turn have gone before it came.
TEST_CASE("Z15 nobody is streamed to in the next step where nobody observes any more") {
    Rig rig(200);
    rig.to_broadcast();
    for (std::uint32_t peer = 4; peer <= 203; peer++) {
        rig.follower_info(peer);
        rig.ack_epoch(peer, Zxid{}, 0);
    }
    rig.step();
    REQUIRE(rig.leader.next_deadline(rig.now) <= rig.now);
    rig.pong(2, rig.leader.pings());
    rig.now = rig.now + rig.timing.silence * 3;  // it stood still
    rig.pong(2, rig.leader.pings());
    rig.step();
    REQUIRE(rig.leader.is_established());
    CHECK(rig.leader.observers() == 0);
    CHECK(rig.leader.next_deadline(rig.now) > rig.now);
}

TEST_CASE("Z15 observers that have taken their slice do not take the others\'") {
    constexpr std::uint32_t last = 43;
    Rig rig(3000);
    rig.to_broadcast();
    for (std::uint32_t peer = 4; peer <= last; peer++) {
        rig.follower_info(peer);
        rig.ack_epoch(peer, Zxid{}, 0);
    }
    rig.forget();
    std::set<std::uint32_t> served;
    for (int i = 0; i < 3; i++) {
        rig.step();
        std::map<std::uint32_t, Zxid> received;
        for (const Said& one : rig.said) {
            if (one.message.type != MessageType::proposal) continue;
            const std::uint32_t length = coord::Reader(one.payload).u32();
            const std::size_t count = one.payload.size() / length;  // all are of one size
            received[one.message.to.value] = Zxid{one.message.zxid.value + count};
        }
        rig.forget();
        for (const auto& [peer, zxid] : received) {
            served.insert(peer);
            rig.ack(peer, zxid);
        }
    }
    CHECK(served.size() == last - 3);
}

TEST_CASE("what is lost on the way to an observer is sent again") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1);
    rig.observe();
    rig.step(milliseconds(30));  // so that it is not due together with a ping
    rig.number_some(id, 2);
    rig.settle();
    CHECK(rig.take_entries(4, false) == 2);
    SUBCASE("by itself, after a heartbeat") {
        const Time due = rig.now + rig.timing.heartbeat + coord::nanoseconds(1);
        const std::uint64_t pings = rig.leader.pings();
        while (rig.leader.pings() == pings) rig.step(milliseconds(10));
        REQUIRE(rig.now < due);
        rig.pong(4, rig.leader.pings());
        CHECK(rig.leader.next_deadline(rig.now) == due);
        rig.step(due - rig.now);
    }
    SUBCASE("when what comes after it does not follow") {
        Message gap = rig.from(4, MessageType::ack);
        gap.commit = gap.zxid = Zxid{rig.log.last().zxid.value - 2};
        gap.phase = 2, gap.offset = 1;
        rig.now = rig.now + rig.timing.settle();
        rig.tell(gap);
        rig.step();
    }
    CHECK(rig.take_entries() == 2);
    rig.step(rig.timing.heartbeat * 2);
    CHECK(rig.take_entries() == 0);
}

TEST_CASE("Z15 so many observe at the most, and who is silent is forgotten") {
    coord::Limits limits;
    limits.observers_max = 2;
    Rig rig(0, 1, limits);
    rig.to_broadcast();
    rig.observe(), rig.observe(5);
    Message message = rig.from(6, MessageType::follower_info);
    message.epoch = 0;
    CHECK_FALSE(rig.tell(message));
    CHECK(rig.leader.observers() == 2);
    const auto pass = [&](coord::Duration time) {
        for (const Time end = rig.now + time; rig.now < end;) {
            rig.pong(2, rig.leader.pings());
            rig.pong(5, rig.leader.pings());
            rig.step(rig.timing.heartbeat);
        }
    };
    pass(rig.timing.silence);
    CHECK(rig.leader.observers() == 2);
    pass(rig.timing.silence * 2);
    CHECK(rig.leader.observers() == 1);
    CHECK_FALSE(rig.tell(rig.from(4, MessageType::pong)));
    CHECK(rig.tell(message));
    CHECK(rig.leader.observers() == 2);
    rig.leader.forget(PeerId{6});  // a hint
    rig.step(rig.timing.heartbeat);
    CHECK(rig.leader.observers() == 1);
}

TEST_CASE("rounds of syncs are between voters; an observer is pinged once a heartbeat") {
    Rig rig;
    rig.to_broadcast();
    rig.observe();
    const std::uint64_t before = rig.leader.pings();
    for (int i = 0; i < 100; i++) {  // a second
        rig.pong(2, rig.leader.pings());
        rig.pong(4, rig.leader.pings());
        rig.leader.request_sync(rig.now, static_cast<std::uint64_t>(i), rig.out);
        rig.step(milliseconds(10));
    }
    CHECK(rig.leader.pings() >= before + 90);
    CHECK(rig.count(MessageType::ping, 2) >= 90);
    CHECK(rig.count(MessageType::ping, 4) >= 9);
    CHECK(rig.count(MessageType::ping, 4) <= 11);
}

TEST_CASE("an observer's touches are confirmed by a round of a quorum, begun after they came") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1, 4000);
    rig.observe();
    const auto touch = [&](std::uint64_t number) {
        Message message = rig.from(4, MessageType::pong);
        message.sequence = rig.leader.pings(), message.touch = number, message.total = 1;
        Bytes ids;
        coord::Writer(ids).u64(id.value);
        message.payload = ids;
        rig.tell(message);
    };
    const auto confirmed = [&] {
        rig.forget();
        rig.step(rig.timing.heartbeat);
        const std::vector<Said> pings = rig.take(MessageType::ping, 4);
        REQUIRE(pings.size() == 1);
        return pings[0].message.confirmed;
    };
    const auto answer = [&](std::uint32_t peer) {
        rig.pong(peer, rig.leader.pings());
        rig.step();
    };
    touch(7);
    CHECK(confirmed() == 0);
    CHECK(confirmed() == 0);  // nobody has answered the round
    Message observes = rig.from(4, MessageType::pong);
    observes.sequence = rig.leader.pings(), observes.touch = 7, observes.total = 1;
    rig.tell(observes), rig.step();
    CHECK(confirmed() == 0);
    answer(2);
    CHECK(confirmed() == 7);
    touch(9);
    answer(2);
    CHECK(confirmed() == 7);  // that round had begun before
    answer(2);
    CHECK(confirmed() == 9);
    // Another life of it has touched nothing.
    touch(11);
    CHECK(confirmed() == 9);
    Message reborn = rig.from(4, MessageType::follower_info);
    reborn.epoch = 0, reborn.nonce = 99;
    rig.tell(reborn);
    answer(2);
    CHECK(confirmed() == 0);
    answer(2);
    CHECK(confirmed() == 0);
}

TEST_CASE("an observer's sessions live by its touches, and its requests and syncs are answered") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1, 1000);
    rig.observe();
    Bytes ids;
    coord::Writer(ids).u64(id.value);
    for (int i = 0; i < 30; i++) {
        Message message = rig.from(4, MessageType::pong);
        message.sequence = rig.leader.pings(), message.total = 1;
        message.touch = static_cast<std::uint64_t>(i + 1), message.payload = ids;
        rig.tell(message);
        rig.pong(2, rig.leader.pings());
        rig.step(milliseconds(100));
        rig.leader.look_at_sessions(0);
    }
    CHECK(rig.leader.counters().sessions_expired == 0);
    Bytes request;
    coord::Writer writer(request);
    writer.u64(id.value), writer.u64(1), writer.u64(0);
    writer.u8(static_cast<std::uint8_t>(OpCode::create));
    writer.bytes(Rig::create_body("/of-an-observer"));
    Message message = rig.from(4, MessageType::request);
    message.payload = request;
    CHECK(rig.tell(message));
    int taken = 0;
    rig.leader.take_requests([&](const Txn& txn) {
        taken += 1;
        rig.leader.number(5000, rig.machine, txn);
    });
    CHECK(taken == 1);
    rig.settle();
    CHECK(rig.machine.tree().contains("/of-an-observer"));
    Message sync = rig.from(4, MessageType::sync);
    sync.sequence = 5;
    CHECK(rig.tell(sync));
    rig.step();
    CHECK(rig.count(MessageType::synced, 4) == 0);
    rig.pong(2, rig.leader.pings());
    rig.step();
    REQUIRE(rig.count(MessageType::synced, 4) == 1);
    CHECK(rig.take(MessageType::synced, 4)[0].message.zxid == rig.leader.committed());
}

TEST_CASE("Z15 what an observer has promised to somebody else is no reason to give up") {
    Rig rig;
    rig.founded(), rig.know();
    rig.follower_info(2);
    rig.lives[2] = 22;
    rig.join(2);
    rig.step(), rig.join(2), rig.step(), rig.join(2), rig.step();
    REQUIRE(rig.leader.is_established());
    for (const auto& [accepted, leader] : {std::pair{rig.leader.epoch(), 3u}, std::pair{99u, 2u}}) {
        rig.follower_info(4, accepted, PeerId{leader});
        CHECK(rig.leader.resignation() == nullptr);
    }
    CHECK(rig.count(MessageType::leader_info, 4) == 2);
}

TEST_CASE("Z15 another storage of an observer is no voter's, also while all are needed") {
    Rig rig;
    rig.know();  // nobody is in the table
    for (const std::uint32_t peer : {2u, 3u}) rig.say(peer, MessageType::follower_info);
    rig.step();
    for (const std::uint32_t peer : {2u, 3u}) rig.say(peer, MessageType::ack_epoch);
    rig.step();
    for (const std::uint32_t peer : {2u, 3u}) rig.say(peer, MessageType::ack);
    rig.step();
    REQUIRE(rig.leader.is_established());
    rig.lives[4] = 24, rig.storages[4] = 104;
    rig.join(4);
    rig.storages[4] = 105, rig.lives[4] = 34;
    rig.join(4);
    CHECK(rig.leader.resignation() == nullptr);
    CHECK(rig.leader.observers() == 1);
    REQUIRE(rig.leader.can_number(rig.machine));
    rig.leader.audit(rig.machine);
}

TEST_CASE("Z15 an observer that has lost what it had acknowledged learns it again") {
    Rig rig;
    rig.lead_two();
    rig.lives[4] = 24, rig.storages[4] = 104;
    rig.join(4);
    Message message = rig.speak(4, MessageType::ack_epoch);
    message.zxid = Zxid{}, message.crc = 0, message.current_epoch = 0;
    rig.forget();
    rig.tell(message);
    CHECK(rig.count(MessageType::refused, 4) == 0);
    CHECK(rig.count(MessageType::diff, 4) == 1);
}

TEST_CASE("Z15 one that has lost it is told of the epoch until it is current there once more") {
    Rig rig;
    rig.lead_two();
    rig.lives[4] = 24, rig.storages[4] = 104;
    rig.join(4);
    rig.lives[4] = 34;  // the same storage, as it was before
    rig.say(4, MessageType::follower_info);
    Message message = rig.speak(4, MessageType::ack_epoch);
    message.zxid = Zxid{}, message.crc = 0, message.current_epoch = 0;
    rig.tell(message);
    rig.forget();  // that is lost
    rig.pong(2, rig.leader.pings());
    rig.step(milliseconds(60));
    CHECK(rig.count(MessageType::new_leader, 4) == 1);
}

TEST_CASE("Z10 of two observers of one id that are both alive one is refused") {
    Rig rig;
    rig.lead_two();
    rig.lives[4] = 24, rig.storages[4] = 104;
    rig.join(4), rig.heard(4);
    rig.lives[4] = 34, rig.storages[4] = 105;
    rig.step(rig.timing.heartbeat);
    rig.join(4), rig.heard(4);
    rig.step(rig.timing.heartbeat);
    CHECK(rig.count(MessageType::refused, 4) == 0);  // the first may be over
    rig.lives[4] = 24, rig.storages[4] = 104;
    rig.heard(4);
    REQUIRE(rig.count(MessageType::refused, 4) == 1);
    CHECK(rig.take(MessageType::refused, 4)[0].message.confirmed == 34);
    CHECK(rig.leader.observers() == 1);
}

TEST_CASE("Z15 so many observers fetch a snapshot at a time, and voters beside them") {
    Rig rig(6);
    Bytes state(3000, 's');
    rig.to_broadcast();
    const coord::LogPosition taken_at = rig.log.position_at_or_before(Zxid{1, 4});
    REQUIRE(support::take_snapshot(rig.log, taken_at, state, 1) == Errc::ok);
    for (std::uint32_t peer = 4; peer < 20; peer++) {
        rig.follower_info(peer);
        rig.ack_epoch(peer, Zxid{}, 0);
    }
    const auto offered = [&] {
        std::size_t count = 0;
        for (std::uint32_t peer = 4; peer < 20; peer++) count += rig.count(MessageType::snap, peer);
        rig.forget();
        return count;
    };
    CHECK(offered() == 8);
    rig.follower_info(3);
    rig.ack_epoch(3, Zxid{}, 0);
    CHECK(rig.count(MessageType::snap, 3) == 1);
    rig.ack_epoch(12, Zxid{}, 0);
    CHECK(offered() == 0);
    rig.ack(4, Zxid{1, 4});  // it has it: there is room for one more
    rig.ack_epoch(12, Zxid{}, 0), rig.ack_epoch(13, Zxid{}, 0);
    CHECK(offered() == 1);
    CHECK(rig.leader.is_fetched(rig.now));
    // Those that fetch no more have no place either.
    for (const Time end = rig.now + rig.timing.silence + milliseconds(50); rig.now < end;) {
        rig.pong(2, rig.leader.pings());
        rig.step(milliseconds(50));
    }
    rig.forget();
    rig.ack_epoch(13, Zxid{}, 0);
    CHECK(offered() == 1);
}

TEST_CASE("the log is kept for observers that are in reach, as it is for voters") {
    Rig rig;
    rig.to_broadcast();
    const SessionId id = rig.open(1);
    rig.observe();
    const Zxid has = rig.leader.committed();
    rig.number_some(id, 5);
    rig.settle();
    CHECK(rig.leader.needed(rig.now) == has);
    rig.take_entries();
    CHECK(rig.leader.needed(rig.now) == rig.log.last().zxid);
}

// -- Members --------------------------------------------------------------------------------------

namespace {

struct Members : Rig {
    SessionId session;
    explicit Members(coord::Duration leased = {}) {
        lease = leased;
        storages[4] = 104, lives[4] = 24;
        lead_two();
        join(3), watch(4, MessageType::follower_info), watch(4, MessageType::ack_epoch);
        step();
        watch(4, MessageType::ack);
        session = open(77, 60000);
        number(session, 1, OpCode::auth, coord::super_user);
        settle();
        pass_both();
        all_ack();
        REQUIRE(machine.applied() == log.last().zxid);
    }
    // As one that takes itself for an observer.
    void watch(std::uint32_t peer, MessageType type) {
        Message message = speak(peer, type);
        message.phase = static_cast<std::uint8_t>(
            type == MessageType::ack ? 2 + 4 : message.phase + 2);
        tell(message);
    }
    void ack_of(std::uint32_t peer, Zxid zxid, std::uint8_t phase = 2) {
        Message message = speak(peer, MessageType::ack);
        message.zxid = message.commit = zxid, message.phase = phase;
        tell(message);
    }
    void all_ack() {
        for (std::uint32_t peer = 2; peer <= 4; peer++) {
            ack_of(peer, log.last().zxid, peer == 4 ? 6 : 2);
        }
        step();
    }
    void pass_both() {
        for (int i = 0; i < 8; i++) {
            for (std::uint32_t peer = 2; peer <= 4; peer++) heard(peer);
            leader.touch(session);
            step(timing.silence / 5);
        }
    }
    void ask(const coord::Reconfig& change, std::uint64_t cxid = 2) {
        Bytes body;
        coord::encode_reconfig(change, body);
        number(session, cxid, OpCode::reconfig, body, cxid - 1);
    }
    static coord::Reconfig change(std::vector<std::uint32_t> joining,
                                  std::vector<std::uint32_t> leaving = {}) {
        coord::Reconfig all;
        for (const std::uint32_t id : joining) {
            coord::Member member;
            member.id = PeerId{id};
            all.joining.push_back(member);
        }
        for (const std::uint32_t id : leaving) all.leaving.emplace_back(id);
        return all;
    }
    coord::VoterTable table() const { return log.voters_at_end(machine); }
    Zxid last() const { return log.last().zxid; }
};

}  // namespace

TEST_CASE("Z16 Z17 Z20 both steps of a change, each with the quorums that it takes") {
    Members m;
    m.ask(Members::change({4}));
    const Zxid joint = m.last();
    REQUIRE(m.table().is_joint());
    CHECK(m.newest().session == m.session);
    CHECK(m.table().storage_of(PeerId{4}) == 104);
    m.leader.admit(m.now, 5000);
    m.step();
    m.leader.audit(m.machine);
    CHECK(m.last() == joint);  // it is not committed yet
    m.ack_of(2, joint);
    m.step();
    CHECK(m.leader.committed() < joint);  // two of the next four
    m.ack_of(4, joint, 6);
    m.step();
    CHECK(m.leader.committed() < joint);  // 4 does not say that it votes
    CHECK(m.leader.resignation() == nullptr);
    m.ack_of(4, joint);
    m.step();
    CHECK(m.leader.committed() == joint);
    CHECK(m.leader.is_admission_due(m.now));
    CHECK(m.leader.has_to_settle());
    m.leader.admit(m.now, 5000);
    CHECK_FALSE(m.table().is_joint());
    CHECK(m.newest().session == SessionId{});
    const Zxid settled = m.last();
    m.step();
    m.ack_of(2, settled);
    m.step();
    CHECK(m.leader.committed() < settled);  // two of four
    m.ack_of(4, settled);
    m.step();
    CHECK(m.leader.committed() == settled);
    CHECK(m.leader.counters().reconfigs == 2);
    m.leader.audit(m.machine);
}

// Whichever of the two that stay is the first: the leader's word is neither its own any more, nor
// that of the one whose place among the voters is now where its own was.
TEST_CASE("Z19 a leader that leaves counts itself for none of the next, and gives up in the end") {
    std::uint32_t first = 0;
    SUBCASE("who has the leader's place first") { first = 2; }
    SUBCASE("who has the leader's place last") { first = 3; }
    Members m;
    m.ask(Members::change({}, {1}));
    REQUIRE(m.table().is_joint());
    m.step();
    m.ack_of(2, m.last());
    m.step();
    CHECK(m.leader.committed() < m.last());  // 1 and 2 are a quorum of the old alone
    m.ack_of(3, m.last());
    m.step();
    CHECK(m.leader.committed() == m.last());
    m.leader.admit(m.now, 5000);
    m.step();
    m.ack_of(first, m.last());
    m.step();
    CHECK(m.leader.committed() < m.last());  // of 2 and 3
    CHECK(m.leader.resignation() == nullptr);
    m.leader.audit(m.machine);
    m.ack_of(5 - first, m.last());
    m.step();
    CHECK(m.leader.committed() == m.last());
    REQUIRE(m.leader.resignation() != nullptr);
    CHECK(std::string(m.leader.resignation()) == "it votes no more");
    CHECK(m.leader.followers().size() == 3);
}

TEST_CASE("Z17 Z18 what cannot be begun is refused in the session's turn, or waits for its time") {
    Members m;
    const auto refused_for = [&](Errc error) {
        coord::Reader in(m.newest().body);
        CHECK(in.u8() == static_cast<std::uint8_t>(coord::ReconfigStep::refused));
        CHECK(in.i32() == static_cast<std::int32_t>(error));
        CHECK_FALSE(m.table().is_joint());
        m.step();
        m.all_ack();
    };
    m.ask(Members::change({9, 8, 7, 6}));
    refused_for(Errc::new_config_no_quorum);
    m.ask(Members::change({}, {1, 2, 3}), 3);
    refused_for(Errc::bad_arguments);
    const Zxid before = m.last();
    m.ask(Members::change({4}), 5);  // out of turn
    CHECK(m.last() == before);
    m.create(m.session, 4, "/a");
    m.number(m.session, 5, OpCode::create, Rig::create_body("/b"), 4);
    const Zxid pending = m.last();
    m.ask(Members::change({4}), 6);  // /b is not applied
    CHECK(m.last() == pending);
    m.step();
    m.all_ack();
    m.ask(Members::change({4}), 6);
    CHECK(m.table().is_joint());
    const Zxid joint = m.last();
    m.number(m.session, 7, OpCode::close_session, Bytes(1, '\0'), 5);
    CHECK(m.last() == joint);  // its session does not end before
    m.ask(Members::change({}, {4}), 7);
    CHECK(m.last() == joint);  // nor is that judged before its own request is applied
    SessionId other;
    m.number({}, 0, OpCode::open_session, Rig::open_body(88));
    other = SessionId{m.last().value};
    m.number(other, 1, OpCode::auth, coord::super_user);
    m.step();
    m.ack_of(2, m.last()), m.ack_of(4, m.last());
    m.step();
    Bytes body;
    coord::encode_reconfig(Members::change({}, {4}), body);
    m.number(other, 2, OpCode::reconfig, body, 1);
    coord::Reader in(m.newest().body);
    CHECK(in.u8() == static_cast<std::uint8_t>(coord::ReconfigStep::refused));
    CHECK(in.i32() == static_cast<std::int32_t>(Errc::reconfig_in_progress));
}

TEST_CASE("Z17 an observer that comes back with less is in step when it has said so once more") {
    Members m;
    m.lives[4] = 25;  // its storage is an image of before
    m.watch(4, MessageType::follower_info);
    Message less = m.speak(4, MessageType::ack_epoch);
    less.phase = 3, less.zxid = Zxid{1, 1}, less.crc = m.log.crc_at(Zxid{1, 1});
    m.tell(less);
    m.pass_both();
    m.ask(Members::change({4}, {2, 3}));
    CHECK_FALSE(m.table().is_joint());
    m.step();
    m.all_ack();
    m.pass_both();
    m.ask(Members::change({4}, {2, 3}), 3);
    CHECK(m.table().is_joint());
}

TEST_CASE("Z17 the next leader ends what was begun, before anything else") {
    Rig rig;
    rig.founded();
    Bytes body;
    coord::Member one, two;
    one.id = PeerId{1}, two.id = PeerId{2};
    coord::VoterTable::write(coord::ReconfigStep::joint, {one, two}, {}, body);
    Txn txn;
    txn.zxid = Zxid{1, 3}, txn.previous = rig.log.last().zxid;
    txn.previous_crc = rig.log.last().crc;
    txn.op = OpCode::reconfig, txn.body = body;
    REQUIRE(rig.log.append(txn) == Errc::ok);
    rig.know();
    rig.say(2, MessageType::follower_info);
    rig.step();
    rig.say(2, MessageType::ack_epoch);
    rig.step();
    REQUIRE(rig.phase() == Phase::synchronization);
    CHECK_FALSE(rig.leader.has_to_settle());
    rig.say(2, MessageType::ack);
    rig.step();
    REQUIRE(rig.leader.can_number(rig.machine));
    REQUIRE(rig.leader.has_to_settle());
    rig.leader.admit(rig.now, 5000);
    CHECK_FALSE(rig.log.voters_at_end(rig.machine).is_joint());
    CHECK_FALSE(rig.log.voters_at_end(rig.machine).knows(PeerId{3}));
    CHECK_FALSE(rig.leader.has_to_settle());
}

TEST_CASE("Z20 what a learner says as an observer counts for nothing, whatever the table says") {
    Rig rig;
    rig.founded(), rig.know();
    Message info = rig.speak(2, MessageType::follower_info);
    info.phase = 3;
    rig.tell(info);
    rig.step();
    CHECK(rig.phase() == Phase::discovery);
    rig.say(2, MessageType::follower_info);
    rig.step();
    REQUIRE(rig.phase() == Phase::promise);
    Message promise = rig.speak(2, MessageType::ack_epoch);
    promise.phase = 3;
    rig.tell(promise);
    rig.step();
    CHECK(rig.phase() == Phase::promise);
    rig.say(2, MessageType::ack_epoch);
    rig.step();
    CHECK(rig.phase() == Phase::synchronization);
}

// -- The lease ------------------------------------------------------------------------------------

namespace {

// Of 300 ms, of which 285 are used.
template <class Base>
struct Leased : Base {
    using Base::Base;
    // Answers the newest ping, or another one, with the promise.
    void keep(std::uint32_t peer, std::uint64_t sequence = 0, std::uint8_t phase = 1) {
        Message message = this->speak(peer, MessageType::pong);
        message.sequence = sequence == 0 ? this->leader.pings() : sequence;
        message.phase = phase;
        this->tell(message);
    }
    coord::Duration left() const { return this->leader.lease_left(this->now); }
    // RETURNS whether a sync of a learner, and one of its own, are answered at once.
    bool answers(std::uint32_t peer = 2) {
        const std::uint64_t before = this->leader.counters().syncs_by_lease;
        std::uint64_t own = 0;
        Zxid zxid;
        while (this->leader.take_own_synced(own, zxid)) {}
        this->forget();
        Message sync = this->speak(peer, MessageType::sync);
        sync.sequence = 55;
        REQUIRE(this->tell(sync));
        this->leader.request_sync(this->now, 66, this->out);
        const bool is_own = this->leader.take_own_synced(own, zxid);
        const std::vector<Said> synced = this->take(MessageType::synced, peer);
        CHECK(synced.size() == (is_own ? 1 : 0));
        CHECK(this->leader.counters().syncs_by_lease == before + (is_own ? 2 : 0));
        if (!is_own) return false;
        CHECK(own == 66);
        CHECK(zxid == this->leader.committed());
        CHECK(synced[0].message.sequence == 55);
        CHECK(synced[0].message.zxid == this->leader.committed());
        return true;
    }
    void ping() {  // another round
        this->step(this->timing.heartbeat);
        REQUIRE(this->count(MessageType::ping) > 0);
        this->forget();
    }
};

struct LeasedRig : Leased<Rig> {
    LeasedRig() {
        lease = milliseconds(300);
        lead_two();
        ping();
    }
};

}  // namespace

TEST_CASE("Z24 who leads without a lease answers no sync at once, whatever is promised") {
    Leased<Rig> rig;
    rig.lead_two();
    rig.ping();
    rig.keep(2), rig.keep(3);
    rig.step();
    CHECK(rig.left() == coord::Duration{});
    CHECK_FALSE(rig.answers());
    CHECK(rig.leader.syncs() == 2);
}

TEST_CASE("Z24 a lease counts from when the ping was sent, and is used for less than its length") {
    LeasedRig rig;
    CHECK(rig.left() == coord::Duration{});
    CHECK_FALSE(rig.answers());
    rig.now = rig.now + milliseconds(80);  // so long the answer takes
    rig.keep(2);
    CHECK(rig.left() == milliseconds(205));
    CHECK(rig.answers());
    rig.now = rig.now + milliseconds(205) - coord::nanoseconds(1);
    CHECK(rig.answers());
    rig.now = rig.now + coord::nanoseconds(1);
    CHECK(rig.left() == coord::Duration{});
    CHECK_FALSE(rig.answers());
    rig.step(), rig.keep(2), rig.step();  // then a round answers
    CHECK(rig.leader.syncs() == 0);
    CHECK(rig.leader.counters().syncs_by_round == 4);
    CHECK(rig.answers());
}

TEST_CASE("Z24 the newest ping that a quorum has answered counts, however the answers come") {
    LeasedRig rig;
    const std::uint64_t first = rig.leader.pings();
    rig.keep(2);
    rig.ping();
    CHECK(rig.left() == milliseconds(185));
    rig.ping();
    rig.keep(2, first + 1);
    CHECK(rig.left() == milliseconds(185));
    rig.keep(2, first);  // late
    CHECK(rig.left() == milliseconds(185));
    rig.keep(2, first + 2);
    CHECK(rig.left() == milliseconds(285));
    rig.keep(2, first + 3);  // there is no such ping
    CHECK(rig.left() == milliseconds(285));
}

TEST_CASE("Z24 whose answer is a promise: who votes, with the storage that counts, and says it") {
    LeasedRig rig;
    rig.keep(2, 0, 0);
    CHECK(rig.left() == coord::Duration{});
    rig.storages[3] = 333;  // not the one that was admitted
    rig.join(3), rig.keep(3);
    CHECK(rig.left() == coord::Duration{});
    rig.keep(2);
    CHECK(rig.left() == milliseconds(285));
    rig.lives[2] = 92, rig.storages[2] = 222;  // it comes back with another one
    rig.say(2, MessageType::follower_info);
    CHECK(rig.left() == coord::Duration{});
    rig.keep(2);
    CHECK(rig.left() == coord::Duration{});
}

TEST_CASE("Z24 what a life promised that has not said whose storage it has is nobody's") {
    LeasedRig rig;
    rig.lives[2] = 92;
    rig.keep(2);
    CHECK(rig.left() == coord::Duration{});
    rig.join(2);
    CHECK(rig.left() == coord::Duration{});
    rig.keep(2);
    CHECK(rig.left() == milliseconds(285));
    rig.lives[2] = 93;  // of the same storage: what it promised is kept
    rig.join(2);
    CHECK(rig.left() == milliseconds(285));
}

TEST_CASE("Z24 no lease before the leader is established, nor when it has given up") {
    Leased<Rig> rig;
    rig.lease = milliseconds(300);
    rig.founded(), rig.know();
    rig.say(2, MessageType::follower_info);
    rig.step();
    rig.say(2, MessageType::ack_epoch);
    rig.ping();
    REQUIRE(rig.phase() == Phase::synchronization);
    rig.keep(2);
    CHECK(rig.left() == coord::Duration{});
    rig.say(2, MessageType::ack);
    rig.step();
    REQUIRE(rig.leader.is_established());
    CHECK(rig.left() == milliseconds(285));
    rig.follower_info(3, 9, PeerId{3});
    REQUIRE(rig.leader.resignation() != nullptr);
    CHECK(rig.left() == coord::Duration{});
}

TEST_CASE("Z24 Z21 it has none from when it asks somebody to stand, though nobody does") {
    LeasedRig rig;
    rig.say(2, MessageType::ack);
    rig.keep(2);
    REQUIRE(rig.leader.hand_over(rig.now, PeerId{2}) == Errc::ok);
    CHECK(rig.answers());  // it has asked nobody yet
    rig.step();
    REQUIRE(rig.count(MessageType::hand_over) == 1);
    CHECK(rig.left() == coord::Duration{});
    CHECK_FALSE(rig.answers());
    for (int i = 0; i < 8; i++) {
        rig.keep(2), rig.say(2, MessageType::ack);
        rig.step(rig.timing.heartbeat);
    }
    REQUIRE(rig.leader.counters().hand_overs_failed == 1);
    REQUIRE(rig.leader.successor() == PeerId{});
    rig.keep(2);  // what it was asked may still be on its way
    CHECK(rig.left() == coord::Duration{});
    CHECK_FALSE(rig.answers());
}

TEST_CASE("Z24 Z16 while the members change both sets keep the lease, and the next one after it") {
    Leased<Members> m(milliseconds(300));
    m.ping();
    m.keep(2), m.keep(3);
    REQUIRE(m.left() == milliseconds(285));
    m.ask(Members::change({4}, {2, 3}));  // of 1, 2 and 3 to 1 and 4
    REQUIRE(m.table().is_joint());
    CHECK(m.left() == coord::Duration{});
    CHECK_FALSE(m.answers());
    m.keep(4);
    CHECK(m.left() == coord::Duration{});  // it takes itself for an observer
    m.ack_of(4, Zxid{2, 1});
    CHECK(m.left() == milliseconds(285));
    m.ping();
    m.keep(4);
    CHECK(m.left() == milliseconds(185));  // of both sets, one has answered
    m.keep(3);
    CHECK(m.left() == milliseconds(285));
    for (const std::uint32_t peer : {2u, 3u, 4u}) m.ack_of(peer, m.last());
    m.step();
    REQUIRE(m.leader.has_to_settle());
    m.ping();
    m.keep(2), m.keep(3);
    CHECK(m.left() == milliseconds(185));
    m.leader.admit(m.now, 5000);
    REQUIRE_FALSE(m.table().is_joint());
    CHECK(m.left() == milliseconds(185));  // 2 and 3 are nobody now
    m.keep(4);
    CHECK(m.left() == milliseconds(285));
    m.leader.audit(m.machine);
}

TEST_CASE("Z24 who is no voter counts for nothing, before and after") {
    LeasedRig rig;
    rig.observe(4);
    rig.lives[4] = 24, rig.storages[4] = 104;
    rig.keep(4);
    CHECK(rig.left() == coord::Duration{});
}

TEST_CASE("Z25 it founds no epoch while it keeps another leader's lease") {
    Rig rig(0);
    rig.log.set_time(rig.now);
    REQUIRE(rig.log.accept_epoch(4, PeerId{3}, milliseconds(300)) == Errc::ok);
    rig.flush();
    rig.log.renew_lease();
    rig.follower_info(2, 4, PeerId{3});
    rig.step();
    CHECK(rig.leader.phase() == Phase::discovery);
    CHECK(rig.leader.next_deadline(rig.now) <= rig.now + rig.timing.heartbeat);
    rig.step(milliseconds(290));
    rig.follower_info(2, 4, PeerId{3});
    rig.step();
    CHECK(rig.leader.phase() == Phase::discovery);
    CHECK(rig.leader.next_deadline(rig.now) <= rig.now + milliseconds(10));
    rig.step(milliseconds(10));
    CHECK(rig.leader.phase() == Phase::promise);
    CHECK(rig.log.epochs().accepted == 5);
    CHECK(rig.log.epochs().lease == coord::Duration{});  // its own promise is no lease
    CHECK_FALSE(rig.log.is_leased());
}

}  // TEST_SUITE
