// Chapter 8: the peer protocol's bytes. The layouts below are written out by hand, apart from the
// code: they are red when the protocol changes, and then replicas of two builds do not understand
// one another.

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

#include "coord.hpp"
#include "support.hpp"

namespace {

using coord::Bytes;
using coord::BytesView;
using coord::Errc;
using coord::Message;
using coord::MessageType;
using coord::PeerId;
using coord::Zxid;

// Each field has bytes of its own: a1 for attempt, a2 for leader, and so on in their order.
Message marked(MessageType type) {
    Message m;
    m.type = type;
    m.ensemble = 0xe1e1e1e1e1e1e1e1, m.from = PeerId{0xf1f1f1f1}, m.to = PeerId{0xf2f2f2f2};
    m.nonce = 0xe2e2e2e2e2e2e2e2, m.epoch = 0xe3e3e3e3;
    m.attempt = 0xa1a1a1a1a1a1a1a1, m.leader = PeerId{0xa2a2a2a2};
    m.accepted_epoch = 0xa3a3a3a3, m.current_epoch = 0xa4a4a4a4;
    m.zxid = Zxid{0xa5a5a5a5a5a5a5a5}, m.crc = 0xa6a6a6a6, m.commit = Zxid{0xa7a7a7a7a7a7a7a7};
    m.digest = 0xa8a8a8a8a8a8a8a8, m.sequence = 0xa9a9a9a9a9a9a9a9;
    m.confirmed = 0xaaaaaaaaaaaaaaaa, m.touch = 0xabababababababab;
    m.offset = 0xacacacacacacacac, m.total = 0xadadadadadadadad, m.phase = 0xae;
    m.storage = 0xb1b1b1b1b1b1b1b1;
    m.payload = "pay";
    return m;
}

struct Layout {
    MessageType type;
    const char* name;
    const char* fields;  // marks, each with its size; p is the payload
};

const std::vector<Layout>& layouts() {
    static const std::vector<Layout> all{
        {MessageType::notification, "NOTIFICATION", "a2:4 a4:4 a5:8 a9:8 ae:1 p"},
        {MessageType::follower_info, "FOLLOWERINFO", "a1:8 a2:4 a3:4 ae:1 b1:8"},
        {MessageType::leader_info, "LEADERINFO", "a1:8 a2:4 a9:8 ad:8"},
        {MessageType::ack_epoch, "ACKEPOCH", "a1:8 a4:4 a5:8 a6:4 a9:8 ae:1 b1:8"},
        {MessageType::diff, "DIFF", "a1:8 a5:8"},
        {MessageType::trunc, "TRUNC", "a1:8 a5:8"},
        {MessageType::snap, "SNAP", "a1:8 a5:8 a6:4 ad:8"},
        {MessageType::chunk_request, "CHUNKREQUEST", "a1:8 a5:8 ac:8"},
        {MessageType::chunk, "CHUNK", "a1:8 a5:8 ac:8 ad:8 p"},
        {MessageType::new_leader, "NEWLEADER", "a5:8"},
        {MessageType::up_to_date, "UPTODATE", "a7:8"},
        {MessageType::proposal, "PROPOSAL", "a5:8 a7:8 p"},
        {MessageType::ack, "ACK", "a1:8 a5:8 a7:8 ac:8 ae:1"},
        {MessageType::commit, "COMMIT", "a7:8 a8:8"},
        {MessageType::ping, "PING", "a7:8 a8:8 a9:8 aa:8 ae:1"},
        {MessageType::pong, "PONG", "a1:8 a9:8 ab:8 ac:8 ad:8 ae:1 p"},
        {MessageType::request, "REQUEST", "p"},
        {MessageType::sync, "SYNC", "a9:8"},
        {MessageType::synced, "SYNCED", "a5:8 a9:8"},
        {MessageType::refused, "REFUSED", "aa:8 ae:1"},
        {MessageType::hand_over, "HANDOVER", "a2:4 a5:8 a9:8 ae:1"},
        {MessageType::feeds, "FEEDS", "ad:8 p"},
        {MessageType::declined, "DECLINED", "a1:8 ae:1"},
    };
    return all;
}

std::string expand(const std::string& fields) {
    std::string out;
    for (std::size_t i = 0; i < fields.size();) {
        if (fields[i] == ' ') {
            i += 1;
        } else if (fields[i] == 'p') {
            out += "00000003706179", i += 1;
        } else {
            for (char n = '0'; n < fields[i + 3]; n++) out += fields.substr(i, 2);
            i += 4;
        }
    }
    return out;
}

// The bytes by hand: magic, checksum, version, ensemble, from, to, nonce, type, epoch, fields.
Bytes by_hand(std::uint8_t type, const std::string& fields) {
    Bytes tail = support::unhex("0002" "e1e1e1e1e1e1e1e1" "f1f1f1f1" "f2f2f2f2" "e2e2e2e2e2e2e2e2");
    tail += static_cast<char>(type);
    tail += support::unhex("e3e3e3e3" + fields);
    Bytes out = support::unhex("636f7202");
    BytesView covered = tail;
    if (type == 12) covered.remove_suffix(3);  // entries have checksums of their own
    coord::Writer(out).u32(coord::crc32c(covered));
    return out + tail;
}

Bytes encoded(const Message& message) {
    Bytes out;
    encode_message(message, out);
    return out;
}

Bytes with_checksum(Bytes bytes) {
    coord::Writer(bytes).patch_u32(4, coord::crc32c(BytesView(bytes).substr(8)));
    return bytes;
}

}  // namespace

TEST_SUITE("08 messages") {

TEST_CASE("golden: the bytes of each of the 23 types") {
    REQUIRE(layouts().size() == coord::message_type_last);
    std::uint8_t number = 0;
    for (const Layout& layout : layouts()) {
        number += 1;
        CAPTURE(layout.name);
        CHECK(static_cast<std::uint8_t>(layout.type) == number);
        CHECK(std::string(name(layout.type)) == layout.name);
        CHECK(support::hex(encoded(marked(layout.type))) ==
              support::hex(by_hand(number, expand(layout.fields))));
    }
    CHECK(support::hex(encoded(marked(MessageType::sync)).substr(0, 8)) == "636f7202" "c57d0f70");
    CHECK(std::string(name(static_cast<MessageType>(0))) == "unknown");
    CHECK(std::string(name(static_cast<MessageType>(24))) == "unknown");
}

TEST_CASE("a message comes back as it was: the fields of its type, and nothing of the others") {
    for (const Layout& layout : layouts()) {
        CAPTURE(layout.name);
        const Message sent = marked(layout.type);
        const Bytes bytes = encoded(sent);
        Message got = marked(MessageType::synced);  // decode leaves nothing of what was there
        REQUIRE(decode_message(bytes, got) == Errc::ok);
        CHECK(got.type == layout.type);
        CHECK(got.from == sent.from);
        CHECK(got.to == sent.to);
        CHECK(got.ensemble == sent.ensemble);
        CHECK(got.nonce == sent.nonce);
        CHECK(got.epoch == sent.epoch);
        const std::string has = layout.fields;
        const auto is = [&](const char* mark, std::uint64_t value, std::uint64_t was) {
            CAPTURE(mark);
            CHECK(value == (has.find(mark) != std::string::npos ? was : 0));
        };
        is("a1", got.attempt, sent.attempt);
        is("a2", got.leader.value, sent.leader.value);
        is("a3", got.accepted_epoch, sent.accepted_epoch);
        is("a4", got.current_epoch, sent.current_epoch);
        is("a5", got.zxid.value, sent.zxid.value);
        is("a6", got.crc, sent.crc);
        is("a7", got.commit.value, sent.commit.value);
        is("a8", got.digest, sent.digest);
        is("a9", got.sequence, sent.sequence);
        is("aa", got.confirmed, sent.confirmed);
        is("ab", got.touch, sent.touch);
        is("ac", got.offset, sent.offset);
        is("ad", got.total, sent.total);
        is("ae", got.phase, sent.phase);
        is("b1", got.storage, sent.storage);
        CHECK(got.payload == (has.find('p') != std::string::npos ? "pay" : ""));
    }
}

TEST_CASE("fields at zero and at their most survive, and so does a large payload") {
    const Bytes large(300000, '\xff');
    for (const Layout& layout : layouts()) {
        CAPTURE(layout.name);
        Message zero, got;
        zero.type = layout.type;
        Bytes bytes = encoded(zero);
        REQUIRE(decode_message(bytes, got) == Errc::ok);
        CHECK(encoded(got) == bytes);
        CHECK(bytes.size() <= coord::message_overhead_bytes);
        Message most;
        most.type = layout.type;
        most.ensemble = most.nonce = most.attempt = most.digest = UINT64_MAX;
        most.from = most.to = most.leader = PeerId{UINT32_MAX};
        most.epoch = most.accepted_epoch = most.current_epoch = most.crc = UINT32_MAX;
        most.zxid = most.commit = Zxid{UINT64_MAX};
        most.sequence = most.confirmed = most.touch = most.offset = most.total = UINT64_MAX;
        most.phase = UINT8_MAX;
        most.payload = large;
        bytes = encoded(most);
        REQUIRE(decode_message(bytes, got) == Errc::ok);
        CHECK(encoded(got) == bytes);
        CHECK(bytes.size() <= coord::message_overhead_bytes + large.size());
    }
}

TEST_CASE("a message cut at any length, or with a byte too many, is corrupt") {
    for (const Layout& layout : layouts()) {
        CAPTURE(layout.name);
        const Bytes bytes = encoded(marked(layout.type));
        Message got;
        for (std::size_t size = 0; size < bytes.size(); size++) {
            CHECK(decode_message(BytesView(bytes).substr(0, size), got) == Errc::corrupt);
            if (size < 8) continue;
            CHECK(decode_message(with_checksum(bytes.substr(0, size)), got) == Errc::corrupt);
        }
        CHECK(decode_message(bytes + '\0', got) == Errc::corrupt);
        CHECK(decode_message(with_checksum(bytes + '\0'), got) == Errc::corrupt);
        CHECK(decode_message(bytes + bytes, got) == Errc::corrupt);
    }
}

TEST_CASE("every flipped bit of each type is noticed; those of entries by the entries") {
    for (const Layout& layout : layouts()) {
        CAPTURE(layout.name);
        Bytes bytes = encoded(marked(layout.type));
        const bool is_proposal = layout.type == MessageType::proposal;
        const std::size_t covered = bytes.size() - (is_proposal ? marked(layout.type).payload.size()
                                                                : 0);
        Message got;
        for (std::size_t i = 0; i < bytes.size() * 8; i++) {
            const char bit = static_cast<char>(1 << (i % 8));
            bytes[i / 8] = static_cast<char>(bytes[i / 8] ^ bit);
            // The format is what everything else is read by.
            const Errc expected = i / 8 == 3 ? Errc::other_version : Errc::corrupt;
            CHECK(decode_message(bytes, got) == (i / 8 < covered ? expected : Errc::ok));
            bytes[i / 8] = static_cast<char>(bytes[i / 8] ^ bit);
        }
        CHECK(decode_message(bytes, got) == Errc::ok);
    }
}

TEST_CASE("a foreign magic and a type that there is not are corrupt, another format is not") {
    Message got;
    const Bytes good = encoded(marked(MessageType::ping));
    for (const char* const magic : {"726f6302", "00000000", "ffffffff", "636f7102"}) {
        CHECK(decode_message(support::unhex(magic) + good.substr(4), got) == Errc::corrupt);
    }
    for (const char* const magic : {"636f7200", "636f7201", "636f7203", "636f72ff"}) {
        CHECK(decode_message(support::unhex(magic) + good.substr(4), got) == Errc::other_version);
        CHECK(decode_message(support::unhex(magic), got) == Errc::other_version);
    }
    for (unsigned type = 0; type < 256; type++) {
        Bytes bytes = encoded(marked(MessageType::request));
        bytes[34] = static_cast<char>(type);
        const Errc error = decode_message(with_checksum(bytes), got);
        CHECK((error == Errc::ok) == (type == 17));
    }
    CHECK(decode_message("", got) == Errc::corrupt);
    CHECK(decode_message("GET / HTTP/1.1\r\n\r\n", got) == Errc::corrupt);
}

// V2. What is damaged is corrupt, whatever version it seems to be of; what is sound is
// other_version where its version does not go with this one, and where a newer one says what is not
// known here.
TEST_CASE("the version before this one and the one after are taken, and no other") {
    Message got;
    for (const coord::MessageType type : {MessageType::ping, MessageType::proposal}) {
        for (unsigned version = 0; version < 300; version++) {
            Message sent = marked(type);
            sent.version = static_cast<std::uint16_t>(version * 7 % 300);
            const bool goes = sent.version >= coord::protocol_version - 1 &&
                              sent.version <= coord::protocol_version + 1;
            CHECK(decode_message(encoded(sent), got) == (goes ? Errc::ok : Errc::other_version));
            CHECK(got.version == sent.version);
            Bytes damaged = encoded(sent);
            damaged[20] = static_cast<char>(damaged[20] ^ 1);
            CHECK(decode_message(damaged, got) == Errc::corrupt);
        }
    }
    for (const int step : {-2, -1, 0, 1, 2}) {
        Message sent = marked(MessageType::ping);
        sent.version = static_cast<std::uint16_t>(coord::protocol_version + step);
        Bytes unknown = encoded(sent);
        unknown[34] = 21;  // a type that there is not
        const bool is_newer = step > 0 || step < -1;
        CHECK(decode_message(with_checksum(unknown), got) ==
              (is_newer ? Errc::other_version : Errc::corrupt));
        const Bytes longer = with_checksum(encoded(sent) + "more");
        CHECK(decode_message(longer, got) == (is_newer ? Errc::other_version : Errc::corrupt));
    }
}

TEST_CASE("a payload whose length lies is corrupt") {
    Message got;
    Bytes bytes = encoded(marked(MessageType::request));
    for (const std::uint32_t length : {0u, 2u, 4u, 1000u, UINT32_MAX}) {
        coord::Writer(bytes).patch_u32(coord::message_header_bytes, length);
        CHECK(decode_message(with_checksum(bytes), got) == Errc::corrupt);
    }
    coord::Writer(bytes).patch_u32(coord::message_header_bytes, 3);
    CHECK(decode_message(with_checksum(bytes), got) == Errc::ok);
}

TEST_CASE("the payload is a view into the bytes that were decoded") {
    const Bytes bytes = encoded(marked(MessageType::request));
    Message got;
    REQUIRE(decode_message(bytes, got) == Errc::ok);
    CHECK(got.payload.data() == bytes.data() + bytes.size() - 3);
}

TEST_CASE("random bytes behind a right head and checksum never do harm") {
    coord::Rng rng(support::seed_or(8));
    Message got;
    for (int i = 0; i < 30000; i++) {
        Bytes bytes = encoded(marked(static_cast<MessageType>(1 + rng.below(20))));
        const std::uint64_t changes = 1 + rng.below(8);
        for (std::uint64_t n = 0; n < changes; n++) {
            bytes[32 + rng.below(bytes.size() - 32)] = static_cast<char>(rng.next());
        }
        if (rng.chance(300)) bytes.resize(39 + rng.below(bytes.size() - 38));
        bytes = with_checksum(bytes);
        if (decode_message(bytes, got) == Errc::ok) CHECK(encoded(got) == bytes);
    }
}

TEST_CASE("voters: which lists are valid") {
    const auto valid = [](std::vector<std::uint32_t> numbers) {
        std::vector<PeerId> ids;
        for (const std::uint32_t number : numbers) ids.emplace_back(number);
        return coord::Voters::is_valid(ids);
    };
    CHECK(valid({1}));
    CHECK(valid({3, 1, 2}));
    CHECK(valid({UINT32_MAX, 1}));
    CHECK_FALSE(valid({}));
    CHECK_FALSE(valid({0}));
    CHECK_FALSE(valid({1, 2, 0}));
    CHECK_FALSE(valid({1, 2, 1}));
    std::vector<std::uint32_t> many;
    for (std::uint32_t i = 1; i <= 63; i++) many.push_back(i);
    CHECK(valid(many));
    many.push_back(64);
    CHECK_FALSE(valid(many));
}

TEST_CASE("voters: in the order of their ids, each with a bit, strangers without") {
    const coord::Voters voters({PeerId{9}, PeerId{2}, PeerId{5}});
    CHECK(voters.size() == 3);
    CHECK(voters[0] == PeerId{2});
    CHECK(voters[2] == PeerId{9});
    CHECK(voters.bit(PeerId{2}) == 1);
    CHECK(voters.bit(PeerId{5}) == 2);
    CHECK(voters.bit(PeerId{9}) == 4);
    CHECK(voters.bit(PeerId{1}) == 0);
    CHECK(voters.bit(PeerId{}) == 0);
    CHECK(voters.contains(PeerId{5}));
    CHECK_FALSE(voters.contains(PeerId{4}));
}

TEST_CASE("voters: a quorum is more than half, of voters alone") {
    for (std::uint32_t count = 1; count <= 9; count++) {
        std::vector<PeerId> ids;
        for (std::uint32_t i = 1; i <= count; i++) ids.emplace_back(i);
        const coord::Voters voters(ids);
        for (std::uint64_t bits = 0; bits < (1u << count); bits++) {
            std::uint64_t ones = 0;
            for (std::uint32_t i = 0; i < count; i++) ones += (bits >> i) & 1u;
            CHECK(voters.is_quorum(bits) == (2 * ones > count));
            CHECK_FALSE(voters.is_quorum((bits << count) & ~((1u << count) - 1)));
        }
    }
    std::vector<PeerId> ids;
    for (std::uint32_t i = 1; i <= 63; i++) ids.emplace_back(i);
    const coord::Voters all(ids);
    CHECK(all.is_quorum(0xffffffff));
    CHECK_FALSE(all.is_quorum(0x7fffffff));
    CHECK_FALSE(all.is_quorum(std::uint64_t{1} << 63));
}

namespace {

using Seats = std::vector<coord::Voters::Seat>;

coord::Voters::Seat seat(std::uint32_t id, std::uint32_t weight, std::uint32_t group,
                         bool is_now = true, bool is_next = false) {
    return {PeerId{id}, weight, group, is_now, is_next, 0};
}

// Written for being plain.
bool is_quorum(const Seats& seats, const std::vector<std::uint32_t>& ids, bool next) {
    std::vector<std::uint64_t> all(256), here(256);
    for (const coord::Voters::Seat& each : seats) {
        if (!(next ? each.is_next : each.is_now)) continue;
        all[each.group] += each.weight;
        for (const std::uint32_t id : ids) {
            here[each.group] += id == each.id.value ? each.weight : 0;
        }
    }
    int groups = 0, won = 0;
    for (std::size_t group = 0; group < 256; group++) {
        groups += all[group] > 0, won += all[group] > 0 && 2 * here[group] > all[group];
    }
    return 2 * won > groups;
}

}  // namespace

TEST_CASE("V1 a quorum of groups, of weights, and of two sets; and two of them meet") {
    coord::Rng rng(support::seed_or(8));
    for (int round = 0; round < 300; round++) {
        Seats seats;
        const bool is_joint = rng.chance(500);
        const auto count = static_cast<std::uint32_t>(rng.between(1, 7));
        for (std::uint32_t id = 1; id <= count; id++) {
            const auto any = [&] { return static_cast<std::uint32_t>(rng.below(3)); };
            const bool is_now = id == 1 || rng.chance(700);
            seats.push_back(seat(id, id == 1 ? 1 : any(), any(), is_now, false));
            if (is_joint) seats.push_back(seat(id, id == 1 ? 2 : any(), any(), false, true));
            if (!is_now) seats.erase(seats.end() - (is_joint ? 2 : 1));
        }
        REQUIRE(coord::Voters::is_valid(seats));
        const coord::Voters voters(seats);
        CHECK(voters.is_joint() == is_joint);
        std::vector<std::uint64_t> quorums;
        for (std::uint64_t bits = 0; bits <= voters.all(); bits++) {
            std::vector<std::uint32_t> ids;
            for (std::size_t i = 0; i < voters.size(); i++) {
                if ((bits >> i & 1) != 0) ids.push_back(voters[i].value);
            }
            const bool is_one = is_quorum(seats, ids, false) &&
                                (!is_joint || is_quorum(seats, ids, true));
            CHECK(voters.is_quorum(bits) == is_one);
            if (is_one) quorums.push_back(bits);
        }
        for (const std::uint64_t one : quorums) {
            for (const std::uint64_t other : quorums) {
                if ((one & other) == 0) FAIL_CHECK("two quorums do not meet");
            }
        }
        Bytes bytes;
        const std::uint64_t heard = rng.next() & voters.all();
        coord::write_voters(voters, {heard, heard & 5, true, is_joint}, PeerId{99}, bytes);
        coord::Voters read;
        coord::Hearing hearing;
        REQUIRE(coord::read_voters(bytes, PeerId{99}, read, hearing));
        CHECK(read.seats().size() == voters.seats().size());
        CHECK(read.is_joint() == voters.is_joint());
        CHECK(hearing.heard == heard);
        CHECK(hearing.reachable == (heard & 5));
        CHECK(hearing.is_reader_heard);
        CHECK(hearing.leaves == is_joint);
        for (std::uint64_t bits = 0; bits <= voters.all(); bits++) {
            if (read.is_quorum(bits) != voters.is_quorum(bits)) FAIL_CHECK("another quorum");
        }
    }
}

TEST_CASE("golden: what a notification says of the voters; and what is none is not read") {
    const coord::Voters voters(Seats{seat(2, 3, 0, true, true), seat(1, 0x102, 4)});
    Bytes bytes;
    coord::write_voters(voters, {3, 2, true, true}, PeerId{7}, bytes);
    CHECK(support::hex(bytes) == "00000002" "0f000003" "00000001" "05040102"
                                 "00000007" "04000000" "00000000" "10000000");
    coord::Voters read;
    coord::Hearing hearing;
    CHECK_FALSE(coord::read_voters("", PeerId{7}, read, hearing));
    for (std::size_t size = 1; size < 8; size++) {
        CHECK_FALSE(coord::read_voters(BytesView(bytes).substr(size), PeerId{7}, read, hearing));
    }
    CHECK_FALSE(coord::read_voters(BytesView(bytes).substr(16), PeerId{7}, read, hearing));
    CHECK_FALSE(coord::read_voters(bytes + bytes, PeerId{7}, read, hearing));  // twice
    Seats many;
    for (std::uint32_t id = 1; id <= 63; id++) many.push_back(seat(id, 1, 0));
    Bytes all;
    coord::write_voters(coord::Voters(many), {}, PeerId{7}, all);
    CHECK(coord::read_voters(all, PeerId{7}, read, hearing));
    CHECK(all.size() + coord::message_overhead_bytes <= 1024);
    Bytes more = all + bytes.substr(0, 8);
    CHECK_FALSE(coord::read_voters(more, PeerId{7}, read, hearing));
    coord::Rng rng(support::seed_or(8));
    for (int i = 0; i < 20000; i++) {
        Bytes bad = rng.chance(500) ? all : bytes;
        for (std::uint64_t n = 0; n < 3; n++) {
            bad[rng.below(bad.size())] = static_cast<char>(rng.next());
        }
        if (!coord::read_voters(bad, PeerId{7}, read, hearing)) continue;
        CHECK(read.size() >= 1);
        (void)read.is_quorum(rng.next());
    }
}

TEST_CASE("an outbox fills in who speaks and to whom, keeps the order, and is empty when drained") {
    coord::Outbox out(PeerId{1}, 77, 88);
    CHECK(out.empty());
    for (std::uint32_t i = 0; i < 3; i++) {
        Message message = marked(MessageType::request);
        const Bytes payload(i * 1000, 'x');
        message.payload = payload;
        out.send(PeerId{i + 2}, message);
    }
    CHECK_FALSE(out.empty());
    std::uint32_t count = 0;
    out.drain([&](PeerId to, BytesView bytes) {
        Message got;
        REQUIRE(decode_message(bytes, got) == Errc::ok);
        CHECK(to == PeerId{count + 2});
        CHECK(got.to == to);
        CHECK(got.from == PeerId{1});
        CHECK(got.ensemble == 77);
        CHECK(got.nonce == 88);
        CHECK(got.payload.size() == count * 1000);
        count += 1;
    });
    CHECK(count == 3);
    CHECK(out.empty());
    out.drain([&](PeerId, BytesView) { count += 1; });
    CHECK(count == 3);
}

}  // TEST_SUITE
