// Chapters 2 and 8: the hash that seals messages, and what is handed on of sealed ones. Then three
// replicas with keys, and a third party between them.

#include <doctest/doctest.h>

#include <deque>
#include <string>
#include <vector>

#include "coord.hpp"
#include "support.hpp"

namespace {

using coord::Bytes;
using coord::BytesView;
using coord::Errc;
using coord::milliseconds;
using coord::PeerId;
using coord::Seals;
using coord::seconds;
using coord::SipHash;
using coord::Simulation;
using coord::SimulationOptions;
using coord::Sync;
using coord::Time;
using Verdict = coord::Seals::Verdict;

constexpr coord::Duration retry = milliseconds(50);
const Bytes key_a = "0123456789abcdef0123456789ABCDEF";
const Bytes key_b = "another key of thirty-two bytes.";

// One life of a replica.
struct Life {
    PeerId id;
    Seals seals;
    Time now{1000000000};
    Bytes message;  // the last one that was handed on
    Life(std::uint32_t number, std::uint64_t nonce, const std::vector<Bytes>& keys = {key_a},
         std::uint64_t ensemble = 7)
        : id{number}, seals(id, ensemble, nonce, nonce * 31, keys, retry) {}
    Bytes send(const Life& to, BytesView text) { return Bytes(seals.seal(now, to.id, text)); }
    Verdict take(PeerId from, BytesView bytes, Bytes* answer = nullptr) {
        BytesView content, reply;
        const Verdict verdict = seals.open(now, from, bytes, content, reply);
        CHECK((verdict == Verdict::message || content.empty()));
        if (verdict == Verdict::message) message = Bytes(content);
        if (answer != nullptr) *answer = Bytes(reply);
        return verdict;
    }
    Verdict take(const Life& from, BytesView bytes, Bytes* answer = nullptr) {
        return take(from.id, bytes, answer);
    }
};

// What one wants to send, and hellos to and fro until nobody has an answer.
void meet(Life& a, Life& b) {
    Bytes bytes = a.send(b, "first");
    Life* from = &a;
    Life* to = &b;
    for (int i = 0; i < 8 && !bytes.empty(); i++) {
        Bytes answer;
        to->take(*from, bytes, &answer);
        std::swap(from, to), bytes = answer;
    }
    CHECK(bytes.empty());
}

Bytes flipped(Bytes bytes, std::size_t bit) {
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    return bytes;
}

SipHash hash_of(std::size_t size) {
    Bytes key, bytes;
    for (int i = 0; i < 16; i++) key.push_back(static_cast<char>(i));
    for (std::size_t i = 0; i < size; i++) bytes.push_back(static_cast<char>(i));
    const auto word = [&](std::size_t at) {
        std::uint64_t value = 0;
        for (std::size_t i = 8; i > 0; i--) {
            value = value << 8 | static_cast<unsigned char>(key[at + i - 1]);
        }
        return value;
    };
    return coord::siphash(bytes, SipHash{word(0), word(8)});
}

Bytes hex_of(const SipHash& hash) {
    Bytes bytes;
    for (const std::uint64_t half : {hash.low, hash.high}) {
        for (int i = 0; i < 8; i++) bytes.push_back(static_cast<char>(half >> 8 * i));
    }
    return support::hex(bytes);
}

SimulationOptions of(std::uint32_t voters, std::uint32_t observers = 0) {
    SimulationOptions options;
    options.voters = voters, options.observers = observers;
    options.seed = support::seed_or(11);
    options.replica.ensemble = 99;
    options.replica.ensemble_keys = {key_a};
    return options;
}

bool all_serve(Simulation& sim) {
    for (std::uint32_t id = 1; id <= sim.size(); id++) {
        if (!sim.is_running(id) || !sim.replica(id).status().serving) return false;
    }
    return true;
}

}  // namespace

TEST_SUITE("08 seals") {

TEST_CASE("SipHash-2-4 of 128 bits: the vectors of its reference") {
    CHECK(hex_of(hash_of(0)) == "a3817f04ba25a8e66df67214c7550293");
    CHECK(hex_of(hash_of(1)) == "da87c1d86b99af44347659119b22fc45");
    CHECK(hex_of(hash_of(2)) == "8177228da4a45dc7fca38bdef60affe4");
    CHECK(hex_of(hash_of(7)) == "a1f1ebbed8dbc153c0b84aa61ff08239");
    CHECK(hex_of(hash_of(8)) == "3b62a9ba6258f5610f83e264f31497b4");
    CHECK(hex_of(hash_of(15)) == "5493e99933b0a8117e08ec0f97cfc3d9");
    CHECK(hex_of(hash_of(16)) == "6ee2a4ca67b054bbfd3315bf85230577");
    CHECK(hex_of(hash_of(63)) == "5150d1772f50834a503e069a973fbd7c");
    CHECK(hex_of(hash_of(64)) == "1eaf077dc0d4cd3f8cad4d383658a74b");
    CHECK(hex_of(hash_of(200)) == "7c5853f4ed12ff9d836a79bc4047022d");
    CHECK(SipHash{1, 2} != SipHash{1, 3});
    CHECK(SipHash{1, 2} != SipHash{0, 2});
}

TEST_CASE("FORMAT golden bytes: a hello, its answer, a sealed message") {
    Life a(1, 0xA1A2), b(2, 0xB1B2);
    const Bytes hello = a.send(b, "dropped");
    Bytes answer, last;
    CHECK(b.take(a, hello, &answer) == Verdict::hello);
    CHECK(a.take(b, answer, &last) == Verdict::hello);
    const Bytes sealed = a.send(b, "text");
    CAPTURE(support::hex(hello));
    CAPTURE(support::hex(answer));
    CAPTURE(support::hex(sealed));
    CHECK(hello.size() == Seals::overhead_bytes + 16);
    CHECK(answer.size() == hello.size());
    CHECK(sealed.size() == Seals::overhead_bytes + 4);
    CHECK(support::hex(hello) ==
          "636f730102000000000000a1a2000000000000000000000000000000017c"
          "0f8b7b587c6abd000000000000000051143a4f58d1352b831a15905eb435"
          "de");
    CHECK(support::hex(answer) ==
          "636f730102000000000000b1b2000000000000a1a200000000000000015a"
          "9946a14b67d3f37c0f8b7b587c6abde35c7a761bafd446ee7ff1a3f90bd3"
          "cf");
    CHECK(support::hex(sealed) ==
          "636f730101000000000000a1a2000000000000b1b2000000000000000374"
          "657874cc2de6d381758df0c9a75cccdc16bce0");
    CHECK(Seals::content(sealed) == "text");
    CHECK(b.take(a, last) == Verdict::hello);
    CHECK(b.take(a, sealed) == Verdict::message);
    CHECK(b.message == "text");
}

TEST_CASE("who has just started is challenged, and then all goes through, both ways") {
    Life a(1, 10), b(2, 20);
    const Bytes hello = a.send(b, "lost");
    REQUIRE(!hello.empty());
    CHECK(a.send(b, "lost").empty());  // it was greeted just now
    Bytes answer;
    CHECK(b.take(a, hello, &answer) == Verdict::hello);
    CHECK(b.seals.life_of(a.id) == 0);  // a hello says nothing of which life is the one of now
    REQUIRE(!answer.empty());
    Bytes third;
    CHECK(a.take(b, answer, &third) == Verdict::hello);
    CHECK(a.seals.life_of(b.id) == 20);
    CHECK(b.take(a, third) == Verdict::hello);
    CHECK(b.seals.life_of(a.id) == 10);
    for (int i = 0; i < 3; i++) {
        CHECK(b.take(a, a.send(b, "to b")) == Verdict::message);
        CHECK(b.message == "to b");
        CHECK(a.take(b, b.send(a, "to a")) == Verdict::message);
        CHECK(a.message == "to a");
    }
    CHECK(b.take(a, a.send(b, "")) == Verdict::message);
}

TEST_CASE("a hello that is lost is sent again, and the first answer to any of them counts") {
    Life a(1, 10), b(2, 20);
    const Bytes first = a.send(b, "x");
    a.now = a.now + retry;
    const Bytes second = a.send(b, "x");
    REQUIRE(!second.empty());
    Bytes answer, other;
    CHECK(b.take(a, second, &other) == Verdict::hello);
    CHECK(b.take(a, first, &answer) == Verdict::hello);  // overtaken
    REQUIRE(!answer.empty());
    CHECK(a.take(b, answer) == Verdict::hello);
    CHECK(a.seals.life_of(b.id) == 20);
    CHECK(a.take(b, other) == Verdict::hello);
    CHECK(a.seals.life_of(b.id) == 20);
}

TEST_CASE("K1 H10 what has no seal, or a wrong one, is dropped: every bit of it counts") {
    Life a(1, 10), b(2, 20);
    meet(a, b);
    const Bytes sealed = a.send(b, "some text");
    for (std::size_t bit = 0; bit < sealed.size() * 8; bit++) {
        CHECK(b.take(a, flipped(sealed, bit)) == Verdict::unsealed);
    }
    for (std::size_t size = 0; size < sealed.size(); size++) {
        CHECK(b.take(a, BytesView(sealed).substr(0, size)) == Verdict::unsealed);
    }
    CHECK(b.take(a, sealed + "x") == Verdict::unsealed);
    CHECK(b.take(a, Seals::content(sealed)) == Verdict::unsealed);
    CHECK(b.take(a, sealed) == Verdict::message);  // none of that has done anything
}

TEST_CASE("K1 H3 another direction, another receiver, another sender, another ensemble") {
    Life a(1, 10), b(2, 20), c(3, 30), stranger(2, 20, {key_a}, 8);
    meet(a, b), meet(a, c), meet(b, c);
    const Bytes sealed = a.send(b, "text");
    CHECK(a.take(b, sealed) == Verdict::unsealed);
    CHECK(c.take(a, sealed) == Verdict::unsealed);
    CHECK(b.take(c, sealed) == Verdict::unsealed);
    CHECK(stranger.take(a, sealed) == Verdict::unsealed);  // M7
    CHECK(b.take(a, sealed) == Verdict::message);
}

TEST_CASE("K1 another key opens nothing; a key is changed without a stop") {
    Life a(1, 10), wrong(2, 20, {key_b});
    Bytes hello = a.send(wrong, "x"), answer;
    CHECK(wrong.take(a, hello, &answer) == Verdict::unsealed);
    CHECK(answer.empty());
    // {a}, {a, b}, {b, a}, {b}: each understands the one before.
    const std::vector<std::vector<Bytes>> steps = {
        {key_a}, {key_a, key_b}, {key_b, key_a}, {key_b}};
    for (std::size_t i = 0; i + 1 < steps.size(); i++) {
        Life old(1, 10, steps[i]), next(2, 20, steps[i + 1]);
        meet(old, next);
        CHECK(next.take(old, old.send(next, "1")) == Verdict::message);
        CHECK(old.take(next, next.send(old, "2")) == Verdict::message);
    }
    Life first(1, 10, steps[0]), last(2, 20, steps[3]);
    CHECK(last.take(first, first.send(last, "x")) == Verdict::unsealed);
}

TEST_CASE("K1 a message is handed on once, in whatever order they come, in a window of 64") {
    Life a(1, 10), b(2, 20);
    meet(a, b);
    std::vector<Bytes> all;
    for (int i = 0; i < 200; i++) all.push_back(a.send(b, std::to_string(i)));
    for (const std::size_t i : {5u, 3u, 4u, 66u, 40u, 67u}) {
        CHECK(b.take(a, all[i]) == Verdict::message);
        CHECK(b.message == std::to_string(i));
        CHECK(b.take(a, all[i]) == Verdict::replayed);
    }
    for (const std::size_t i : {3u, 4u, 5u, 40u, 66u, 67u}) {
        CHECK(b.take(a, all[i]) == Verdict::replayed);
    }
    CHECK(b.take(a, all[3]) == Verdict::replayed);  // 64 behind
    CHECK(b.take(a, all[6]) == Verdict::message);   // 61
    CHECK(b.take(a, all[199]) == Verdict::message);
    CHECK(b.take(a, all[135]) == Verdict::replayed);  // 64 behind: too late, though it is new
    CHECK(b.take(a, all[136]) == Verdict::message);
    CHECK(b.take(a, all[136]) == Verdict::replayed);
    CHECK(b.take(a, all[0]) == Verdict::replayed);
}

TEST_CASE("K1 H3 what was sealed for a life that is over, or by one, does nothing to the next") {
    Life a(1, 10), b(2, 20);
    meet(a, b);
    std::vector<Bytes> old_to_b, old_to_a;
    for (int i = 0; i < 5; i++) {
        old_to_b.push_back(a.send(b, "old")), old_to_a.push_back(b.send(a, "old"));
    }
    Life again(2, 21);  // b has started again, and knows nobody
    for (const Bytes& each : old_to_b) CHECK(again.take(a, each) == Verdict::replayed);
    for (const Bytes& each : old_to_a) CHECK(again.take(a, each) == Verdict::unsealed);
    CHECK(again.seals.life_of(a.id) == 0);
    again.now = again.now + retry;
    meet(again, a);
    CHECK(a.seals.life_of(b.id) == 21);
    CHECK(again.seals.life_of(a.id) == 10);
    for (const Bytes& each : old_to_b) CHECK(again.take(a, each) == Verdict::replayed);
    for (const Bytes& each : old_to_a) CHECK(a.take(again, each) == Verdict::replayed);
    CHECK(a.seals.life_of(b.id) == 21);
    CHECK(again.take(a, a.send(again, "new")) == Verdict::message);
    CHECK(a.take(again, again.send(a, "new")) == Verdict::message);
}

TEST_CASE("K1 what is still sent to a life that is over does not reach the one of now") {
    Life a(1, 10), b(2, 20);
    meet(a, b);
    Life again(2, 21);
    Bytes answer;
    CHECK(a.take(again, again.send(a, "x"), &answer) == Verdict::hello);
    const Bytes late = a.send(b, "for the life before");  // a has no proof yet that it is over
    CHECK(again.take(a, answer) == Verdict::hello);
    REQUIRE(again.seals.life_of(a.id) == 10);
    CHECK(again.take(a, late) == Verdict::replayed);
}

TEST_CASE("K2 recorded hellos, and answers to challenges that are over, change nothing") {
    Life a(1, 10), b(2, 20);
    std::vector<Bytes> recorded;
    Bytes bytes = a.send(b, "first"), answer;
    recorded.push_back(bytes);
    b.take(a, bytes, &answer);
    const Bytes answered = answer;
    a.take(b, answered, &answer);
    b.take(a, answer);
    Life again(2, 21);
    again.now = again.now + retry;
    a.now = a.now + retry;
    meet(again, a);
    REQUIRE(a.seals.life_of(b.id) == 21);
    CHECK(a.take(b, answered) == Verdict::hello);  // of b's life before, which a had believed once
    CHECK(a.seals.life_of(b.id) == 21);
    for (const Bytes& each : recorded) CHECK(again.take(a, each) == Verdict::hello);
    CHECK(again.seals.life_of(a.id) == 10);
    CHECK(again.take(a, a.send(again, "new")) == Verdict::message);
    CHECK(a.take(again, again.send(a, "new")) == Verdict::message);
}

TEST_CASE("K2 a replay from an older life costs none of what is on its way") {
    Life dead(1, 9), a(1, 10), b(2, 20);
    meet(dead, b);
    const Bytes old = dead.send(b, "old");
    b.now = b.now + retry;
    meet(a, b);
    REQUIRE(b.seals.life_of(a.id) == 10);
    const Bytes under_way = a.send(b, "under way");
    b.now = b.now + retry;
    Bytes challenge, answer;
    CHECK(b.take(a, old, &challenge) == Verdict::replayed);
    REQUIRE(!challenge.empty());  // perhaps it was a new life
    CHECK(a.take(b, challenge, &answer) == Verdict::hello);
    CHECK(b.take(a, answer) == Verdict::hello);
    CHECK(b.seals.life_of(a.id) == 10);
    CHECK(b.take(a, under_way) == Verdict::message);
    CHECK(b.take(a, under_way) == Verdict::replayed);
}

TEST_CASE("whoever has begun anew is noticed, whichever side speaks first") {
    for (const bool old_one_speaks : {false, true}) {
        Life a(1, 10), b(2, 20);
        meet(a, b);
        Life again(2, 21);
        a.now = a.now + seconds(1), again.now = a.now;
        std::deque<std::pair<Life*, Bytes>> wire;
        if (old_one_speaks) wire.push_back({&again, a.send(b, "x")});
        if (!old_one_speaks) wire.push_back({&a, again.send(a, "x")});
        int messages = 0;
        for (; !wire.empty() && messages < 20; messages++) {
            Life& to = *wire.front().first;
            Life& from = &to == &a ? again : a;
            Bytes answer;
            to.take(from, wire.front().second, &answer);
            wire.pop_front();
            if (!answer.empty()) wire.push_back({&from, answer});
        }
        CHECK(messages <= 5);
        CHECK(a.seals.life_of(b.id) == 21);
        CHECK(again.seals.life_of(a.id) == 10);
    }
}

TEST_CASE("who cannot seal fills no memory; of those who can, so many are remembered") {
    Life b(2, 20), first(3, 3);
    meet(first, b);
    const Bytes sealed = first.send(b, "text");
    CHECK(b.take(first, sealed) == Verdict::message);
    for (std::uint32_t id = 100; id < 5000; id++) {
        Bytes answer;
        b.now = b.now + milliseconds(1);
        CHECK(b.take(PeerId{id}, sealed, &answer) == Verdict::unsealed);
        CHECK(answer.empty());
    }
    REQUIRE(b.seals.life_of(first.id) == 3);
    for (std::uint32_t id = 100; id < 100 + Seals::peers_max; id++) {
        b.now = b.now + milliseconds(1);
        Life other(id, id);
        meet(other, b);
        CHECK(b.seals.life_of(other.id) == id);
    }
    CHECK(b.seals.life_of(first.id) == 0);  // it was quiet for longest
    first.now = b.now = b.now + seconds(1);
    meet(b, first);
    REQUIRE(b.seals.life_of(first.id) == 3);
    CHECK(b.take(first, sealed) == Verdict::replayed);  // what was taken before it was forgotten
    CHECK(b.take(first, first.send(b, "new")) == Verdict::message);
    CHECK(b.seals.life_of(PeerId{101}) == 101);
}

TEST_CASE("keys that are none are refused by name") {
    const auto reason = [](const std::vector<Bytes>& keys) {
        coord::MemoryStorage disk;
        coord::ReplicaOptions options;
        options.ensemble_keys = keys;
        const coord::Replica replica(options, disk);
        return Bytes(replica.status().reason);
    };
    CHECK(reason({}) == "");
    CHECK(reason({key_a}) == "");
    CHECK(reason({key_a, key_b}) == "");
    for (const std::vector<Bytes>& bad :
         {std::vector<Bytes>{key_a, key_b, key_a}, {""}, {key_a + "x"}, {Bytes(32, '\0')}}) {
        CHECK(reason(bad).find("ensemble_keys") != Bytes::npos);
    }
    struct Narrow final : coord::Transport {
        std::size_t most;
        explicit Narrow(std::size_t bytes) : most(bytes) {}
        void send(PeerId, BytesView) override {}
        std::size_t message_bytes_max() const override { return most; }
    } tight(1068), enough(1069);
    coord::MemoryStorage disks[2];
    coord::ReplicaOptions options;
    options.ensemble_keys = {key_a};
    const coord::Replica refused(options, disks[0], tight), good(options, disks[1], enough);
    CHECK(Bytes(refused.status().reason).find("1069") != Bytes::npos);
    CHECK(Bytes(good.status().reason) == "");
}

TEST_CASE("three voters and an observer with keys: all goes on as without, through crashes") {
    Simulation sim(of(3, 1));
    REQUIRE(sim.run_until([&] { return all_serve(sim); }, seconds(20)));
    for (std::uint32_t i = 0; i < 4; i++) {
        const std::uint32_t victim = 1 + i;
        sim.crash(victim);
        sim.run_for(seconds(1));
        sim.restart(victim);
        REQUIRE(sim.run_until([&] { return all_serve(sim); }, seconds(20)));
        auto opened = Sync::open(sim.replica(1), {}, sim.pump());
        REQUIRE(opened);
        const Sync zk(*opened, sim.pump());
        REQUIRE(zk.create("/n-", Bytes(30000, 'x'), coord::CreateMode::persistent_sequential));
        REQUIRE(zk.sync());
        REQUIRE(zk.close());
    }
    for (std::uint32_t id = 1; id <= 4; id++) {
        CHECK(sim.replica(id).counters().dropped_unsealed == 0);
    }
}

TEST_CASE("H4 a third party who has no key records, replays and forges: nothing comes of it") {
    SimulationOptions options = of(3, 1);
    options.network.third_party_permille = 700;
    options.network.loss_permille = 20;
    Simulation sim(options);
    REQUIRE(sim.run_until([&] { return all_serve(sim); }, seconds(20)));
    std::uint64_t unsealed = 0, replayed = 0;
    for (std::uint32_t i = 0; i < 6; i++) {
        auto opened = Sync::open(sim.replica(1 + i % 4), {}, sim.pump());
        REQUIRE(opened);
        const Sync zk(*opened, sim.pump());
        for (int k = 0; k < 10; k++) {
            REQUIRE(zk.create("/n-", "x", coord::CreateMode::persistent_sequential));
        }
        const std::uint32_t victim = 1 + (i + 1) % 4;
        unsealed += sim.replica(victim).counters().dropped_unsealed;
        replayed += sim.replica(victim).counters().dropped_replayed;
        sim.crash(victim);
        sim.run_for(milliseconds(300));
        sim.restart(victim);
        REQUIRE(sim.run_until([&] { return all_serve(sim); }, seconds(20)));
    }
    CHECK(sim.counters().messages_forged > 500);
    CHECK(unsealed > 100);
    CHECK(replayed > 100);
    REQUIRE(sim.run_until([&] {
        for (std::uint32_t id = 2; id <= 4; id++) {
            if (sim.replica(id).status().applied != sim.replica(1).status().applied) return false;
        }
        return true;
    }, seconds(20)));
    for (std::uint32_t id = 1; id <= 4; id++) {
        CHECK(sim.replica(id).status().digest == sim.replica(1).status().digest);
        CHECK(sim.replica(id).tree().size() == 4 + 60);
        sim.replica(id).audit();
    }
}

TEST_CASE("M7 who has no key, or another one, is not heard and hears nothing; the log says so") {
    struct Wire final : coord::Transport {
        std::deque<std::pair<PeerId, Bytes>> sent;
        void send(PeerId to, BytesView bytes) override { sent.push_back({to, Bytes(bytes)}); }
        std::size_t message_bytes_max() const override { return 64 * 1024; }
    };
    for (const std::vector<Bytes>& keys : {std::vector<Bytes>{}, {key_b}}) {
        Wire wires[2];
        coord::MemoryStorage disks[2];
        coord::ReplicaOptions options;
        options.voters = {PeerId{1}, PeerId{2}};
        options.ensemble = 5, options.entropy = 100, options.ensemble_keys = {key_a};
        coord::Replica one(options, disks[0], wires[0]);
        options.id = PeerId{2}, options.entropy = 200, options.ensemble_keys = keys;
        coord::Replica two(options, disks[1], wires[1]);
        Time now;
        for (int i = 0; i < 3000; i++) {
            now = now + milliseconds(1);
            one.poll(now), two.poll(now);
            for (; !wires[0].sent.empty(); wires[0].sent.pop_front()) {
                two.receive(PeerId{1}, wires[0].sent.front().second);
                CHECK(wires[0].sent.front().second.find(key_a.substr(0, 8)) == Bytes::npos);  // K3
            }
            for (; !wires[1].sent.empty(); wires[1].sent.pop_front()) {
                one.receive(PeerId{2}, wires[1].sent.front().second);
            }
        }
        CHECK_FALSE(one.status().serving);
        CHECK_FALSE(two.status().serving);
        CHECK(one.counters().dropped_unsealed > 10);
        const std::uint64_t other = keys.empty() ? two.counters().dropped_corrupt
                                                 : two.counters().dropped_unsealed;
        CHECK(other > 10);
        const Bytes says = one.state_json() + one.describe();  // K3
        CHECK(says.find(key_a) == Bytes::npos);
        CHECK(says.find(support::hex(key_a)) == Bytes::npos);
    }
}

TEST_CASE("H10 a forged message that ends a replica without keys does nothing to one with a key") {
    struct Wire final : coord::Transport {
        Bytes last;
        void send(PeerId, BytesView bytes) override { last = Bytes(bytes); }
        std::size_t message_bytes_max() const override { return 64 * 1024; }
    };
    for (const bool has_key : {false, true}) {
        Wire wire;
        coord::MemoryStorage disk;
        coord::ReplicaOptions options;
        options.voters = {PeerId{1}, PeerId{2}};
        options.ensemble = 5, options.entropy = 100;
        if (has_key) options.ensemble_keys = {key_a};
        coord::Replica replica(options, disk, wire);
        replica.poll(Time{1000000});
        REQUIRE(!wire.last.empty());
        coord::Message forged;
        forged.type = coord::MessageType::refused, forged.phase = 1;
        forged.from = PeerId{2}, forged.to = PeerId{1};
        forged.ensemble = 5, forged.nonce = 77;
        coord::Reader at(BytesView(wire.last).substr(has_key ? 5 : 26));
        forged.confirmed = at.u64();
        Bytes bytes;
        coord::encode_message(forged, bytes);
        replica.receive(PeerId{2}, bytes);
        replica.poll(Time{2000000});
        CHECK((replica.status().role == coord::Role::failed) == !has_key);
        CHECK(replica.counters().dropped_unsealed == (has_key ? 1u : 0u));
    }
}

TEST_CASE("messages are as large as the transport takes, seal included") {
    SimulationOptions options = of(3);
    options.message_bytes_max = 1024 + Seals::overhead_bytes;
    Simulation sim(options);
    REQUIRE(sim.run_until([&] { return all_serve(sim); }, seconds(20)));
    auto opened = Sync::open(sim.replica(1), {}, sim.pump());
    REQUIRE(opened);
    const Sync zk(*opened, sim.pump());
    for (int i = 0; i < 50; i++) {
        REQUIRE(zk.create("/n-", Bytes(600, 'x'), coord::CreateMode::persistent_sequential));
    }
    for (int round = 0; round < 20; round++) {  // what is proposed together fills a message
        for (std::size_t i = 0; i < 60; i++) {
            zk.session().set("/n-0000000000", Bytes(i * 7 % 41, 'x'), {});
        }
        sim.run_for(milliseconds(50));
    }
    CHECK(zk.create("/large", Bytes(1024, 'x')).error() == Errc::too_large);
    CHECK(sim.replica(1).counters().bytes_sent > 0);  // the simulation asserts the size of each
}

}  // TEST_SUITE
