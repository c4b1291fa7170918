// ctest: --depth=8 --minutes=2
// ctest: --depth=40 --from=24 --writes=2 --crashes=0 --partitions=0 --minutes=2
// ctest: --depth=9 --from=9 --writes=1 --crashes=2 --partitions=0 --wipes=1 --minutes=2
// ctest: --depth=11 --from=11 --writes=1 --crashes=1 --partitions=0 --hand-overs=1 --minutes=1
//
// Exhaustive search in a small scope: three voters that have elected a leader, and every order of
// what can happen next, message by message, up to a number of steps: breadth by depth, each state
// once. What can happen:
//
//   deliver  the oldest message of a link comes (--any-order: any message of it)
//   disk     all that a replica has flushed becomes durable, or the first record of it
//   write    a client of a replica creates a node, at most --writes=N (2) times
//   crash    a replica dies; of its records that are not durable the first k survive, for every k;
//            at most --crashes=N (2) times
//   restart  it comes back on that disk
//   isolate  a replica loses all its links, with what is on them; at most --partitions=N (1) times
//   heal     the links come back
//   empty    a replica that is down loses its disk, at most --wipes=N (0) times
//   hint     a replica is told, wrongly, that its leader is gone; at most --hints=N (0) times
//   offer    a leader is told to hand over to another one; at most --hand-overs=N (0) times
//   wait     nothing is on its way and no disk is busy: time goes on until something happens
//
// What is not looked at, so that the rest can be: notifications, pings and pongs come at once and
// in order (an election is a hint; who wins follows from who is up and connected); time stands
// still while anything else can happen (a wrong hint stands for a timeout that comes too early);
// messages of a link are neither lost, but by isolate and crash, nor repeated. A write is asked for
// at any replica that still has its first life. Two states are taken for one when replicas, disks,
// links and clients look equal from outside, and each replica has got the same messages from each
// other one since it looked for a leader last; --strict: in the same order, too;
// --shown: what has come to them does not count, only what they show of themselves, and a leader of
// its learners. That is a twelfth of the states, and so a wider search in the same time; but two
// that differ in what nobody shows are then one.
//
// In every state the ledger of paper/harness.hpp is asked, and audit(). Out of one state in
// --finish=K (16), by its hash, the run is finished in four ways: with all replicas, or first with
// each pair alone, what is volatile in the third lost; then the third comes back; then all restart
// from their disks. A pair with a disk that was emptied need not serve, and is left out. Each time
// all must serve, be equal and have every write that was acknowledged.
//
//   --whole      no depth: each state once, by the first path that comes to it, until there is none
//                left. No path is followed further than 250 steps: then not all is covered
//   --depth=N    the longest path, found by deepening: 2, 3, 4 ...  (--from=N: starts there)
//   --states=N   gives up a depth after so many states; --minutes=M: after so long in all
//   --voters=N   3
//   --replay="..." runs one path, as it is printed with a violation, and shows each step
//
// How much of it is covered. To the end, with --whole: two writes, 86,247 states, no path longer
// than 22 steps; a write and a crash, 656,338 and 49, in 78 s; a write and a partition, 409,859
// and 50, in 22 s. To the end by what is shown (--whole --shown --finish=64):
//
//   writes, crashes, partitions    states       longest path
//   2  0  0                            27,655       21
//   1  1  0                            45,846       45
//   1  0  1                            33,968
//   0  1  1                            55,237
//   0  2  0                           115,797
//   2  0  1                         1,586,823       58
//   1  2  0                         2,360,806       78
//   2  1  0                         2,963,997       57
//   1  1  1                         3,010,047       80
//   0  2  1                         3,222,449       92
//
// A second write made that 65 times as many, and a second crash 51 times. All at once, two writes,
// two crashes and a partition, would be some ten thousand million states, at 9,000 a second: that
// is not covered. What is known of it is every path of up to 8 steps, 88,610 states, in each run of
// the tests; what any three of these five do with each other, by the searches to the end; a crash
// at each durable step, by crash_points.cpp; and what chance finds, by random.cpp.

#include "paper/harness.hpp"

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <unordered_set>

namespace exhaustive {

using u8 = std::uint8_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

// -------------------------------------------------------------------------------------------------
// Memory that can be saved and put back. Replicas cannot be copied; but a world that lives in one
// stretch of memory, with everything that it allocates, can be: byte by byte, to the same place.

class Arena {
public:
    static constexpr std::size_t small_bytes = 16u << 20;
    static constexpr std::size_t large_bytes = 65536;  // a block of the log
    static constexpr std::size_t large_kept = 4096;    // no history here is longer
    static constexpr std::size_t large_count = 64;
    static constexpr std::size_t class_bytes = 64;
    static constexpr std::size_t classes = 1024;

    struct Saved {
        std::vector<char> bytes;
        std::size_t small = 0;
    };

    bool is_on = false;

    bool owns(const void* p) const {
        const auto at = reinterpret_cast<std::uintptr_t>(p);
        const auto start = reinterpret_cast<std::uintptr_t>(memory_);
        return memory_ != nullptr && at >= start && at < start + total;
    }
    void open() {
        memory_ = static_cast<char*>(std::aligned_alloc(4096, total));
        if (memory_ == nullptr) std::abort();
        std::memset(memory_, 0, sizeof(Head));
        head().used = (sizeof(Head) + class_bytes - 1) / class_bytes * class_bytes;
    }
    void* allocate(std::size_t size) {
        const std::size_t of = (size + class_bytes - 1) / class_bytes;
        if (of >= classes) return allocate_large(size);
        if (void* const again = head().free[of]) {
            std::memcpy(&head().free[of], again, sizeof(void*));
            return again;
        }
        if (head().used + (of + 1) * class_bytes > small_bytes) std::abort();
        char* const block = memory_ + head().used;
        head().used += (of + 1) * class_bytes;
        std::memcpy(block, &of, sizeof of);
        return block + class_bytes;  // keeps an alignment of 64
    }
    void release(void* p) {
        char* const at = static_cast<char*>(p);
        if (at >= memory_ + small_bytes) {
            const auto slot = static_cast<std::size_t>(at - (memory_ + small_bytes)) / large_bytes;
            head().large_used &= ~(u64{1} << slot);
            return;
        }
        std::size_t of = 0;
        std::memcpy(&of, at - class_bytes, sizeof of);
        std::memcpy(at, &head().free[of], sizeof(void*));
        head().free[of] = at;
    }
    void save(Saved& to) {
        const bool was_on = is_on;
        is_on = false;
        to.small = head().used;
        to.bytes.resize(to.small + count_large() * large_kept);
        is_on = was_on;
        std::memcpy(to.bytes.data(), memory_, to.small);
        std::size_t at = to.small;
        for (std::size_t i = 0; i < large_count; i++) {
            if ((head().large_used >> i & 1u) == 0) continue;
            std::memcpy(to.bytes.data() + at, large(i), large_kept);
            at += large_kept;
        }
    }
    void restore(const Saved& from) {
        std::memcpy(memory_, from.bytes.data(), from.small);
        std::size_t at = from.small;
        for (std::size_t i = 0; i < large_count; i++) {
            if ((head().large_used >> i & 1u) == 0) continue;
            std::memcpy(large(i), from.bytes.data() + at, large_kept);
            at += large_kept;
        }
    }

private:
    struct Head {
        std::size_t used;
        u64 large_used;
        void* free[classes];
    };
    static constexpr std::size_t total = small_bytes + large_count * large_bytes;

    Head& head() const { return *reinterpret_cast<Head*>(memory_); }
    char* large(std::size_t slot) const { return memory_ + small_bytes + slot * large_bytes; }
    std::size_t count_large() const {
        std::size_t count = 0;
        for (std::size_t i = 0; i < large_count; i++) count += head().large_used >> i & 1u;
        return count;
    }
    void* allocate_large(std::size_t size) {
        if (size > large_bytes) std::abort();
        for (std::size_t i = 0; i < large_count; i++) {
            if ((head().large_used >> i & 1u) != 0) continue;
            head().large_used |= u64{1} << i;
            return large(i);
        }
        std::abort();
    }
    char* memory_ = nullptr;
};

Arena arena;

// What is allocated in its scope belongs to the world.
struct Inside {
    Inside() { arena.is_on = true; }
    ~Inside() { arena.is_on = false; }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;
};

void* allocate(std::size_t size) {
    void* const p = arena.is_on ? arena.allocate(size) : std::malloc(size == 0 ? 1 : size);
    if (p == nullptr) std::abort();
    return p;
}

void* allocate_aligned(std::size_t size, std::size_t alignment) {
    if (arena.is_on) return arena.allocate(size);
    void* const p = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    if (p == nullptr) std::abort();
    return p;
}

void release(void* p) {
    if (p == nullptr) return;
    if (arena.owns(p)) {
        arena.release(p);
    } else {
        std::free(p);
    }
}

}  // namespace exhaustive

void* operator new(std::size_t size) { return exhaustive::allocate(size); }
void* operator new[](std::size_t size) { return exhaustive::allocate(size); }
void* operator new(std::size_t size, std::align_val_t alignment) {
    return exhaustive::allocate_aligned(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
    return exhaustive::allocate_aligned(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* p) noexcept { exhaustive::release(p); }
void operator delete[](void* p) noexcept { exhaustive::release(p); }
void operator delete(void* p, std::size_t) noexcept { exhaustive::release(p); }
void operator delete[](void* p, std::size_t) noexcept { exhaustive::release(p); }
void operator delete(void* p, std::align_val_t) noexcept { exhaustive::release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { exhaustive::release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { exhaustive::release(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { exhaustive::release(p); }

namespace exhaustive {

using paper::Message;
using paper::MessageType;
using paper::Packet;
using paper::PeerId;
using paper::Role;
using paper::show;
using paper::World;

// -------------------------------------------------------------------------------------------------
// Choices

struct Bounds {
    u32 voters = 3;
    u32 writes = 2;
    u32 crashes = 2;
    u32 partitions = 1;
    u32 hints = 0;
    u32 hand_overs = 0;
    u32 wipes = 0;
    bool any_order = false;
    bool strict = false;
    bool shown = false;
};

struct Choice {
    enum class Kind : u8 {
        deliver, disk, write, crash, restart, isolate, heal, hint, wait, wipe, offer
    };
    Kind kind = Kind::wait;
    u8 a = 0;
    u8 b = 0;
    u8 nth = 0;  // of the messages of a link; records that survive, or become durable
};

// As it is printed and read again: "m1>3", "m1>3.2", "d2", "w3", "c2", "c2.1", "r2", "i1", ...
std::string show(Choice choice) {
    const std::string a = std::to_string(choice.a);
    const std::string nth = choice.nth > 0 ? "." + std::to_string(choice.nth) : "";
    switch (choice.kind) {
        case Choice::Kind::deliver: return "m" + a + ">" + std::to_string(choice.b) + nth;
        case Choice::Kind::disk: return "d" + a + nth;
        case Choice::Kind::write: return "w" + a;
        case Choice::Kind::crash: return "c" + a + nth;
        case Choice::Kind::restart: return "r" + a;
        case Choice::Kind::isolate: return "i" + a;
        case Choice::Kind::heal: return "h";
        case Choice::Kind::hint: return "t" + a;
        case Choice::Kind::wait: return "z";
        case Choice::Kind::wipe: return "e" + a;
        case Choice::Kind::offer: return "o" + a + ">" + std::to_string(choice.b);
    }
    return "?";
}

std::string show(const std::vector<Choice>& path) {
    std::string all;
    for (const Choice choice : path) all += (all.empty() ? "" : " ") + show(choice);
    return all;
}

bool read_choice(const std::string& text, Choice& choice) {
    static const char letters[] = "mdwcrihtzeo";
    const char* const letter = text.empty() ? nullptr : std::strchr(letters, text[0]);
    if (letter == nullptr) return false;
    choice = Choice{};
    choice.kind = static_cast<Choice::Kind>(letter - letters);
    if (text.size() > 1) choice.a = static_cast<u8>(std::atoi(text.c_str() + 1));
    const std::size_t arrow = text.find('>'), dot = text.find('.');
    if (arrow != std::string::npos) choice.b = static_cast<u8>(std::atoi(&text[arrow + 1]));
    if (dot != std::string::npos) choice.nth = static_cast<u8>(std::atoi(&text[dot + 1]));
    return true;
}

// -------------------------------------------------------------------------------------------------
// The world, with what is needed to tell two states apart

bool comes_at_once(MessageType type) {
    return type == MessageType::notification || type == MessageType::ping ||
           type == MessageType::pong;
}

class State {
public:
    static constexpr u32 voters_max = 5;

    explicit State(const Bounds& bounds) : bounds_(bounds), left_(bounds) {
        paper::WorldOptions options;
        options.voters = bounds.voters;
        options.timing.heartbeat = coord::milliseconds(100);
        options.timing.silence = coord::milliseconds(300);
        world_.reset(new World(options));
        world_->start_all();
        world_->run_until([this] { return world_->are_equal(world_->ids()); });
        for (const PeerId id : world_->ids()) sessions_[id.value] = world_->open(id);
        world_->run_until([this] { return world_->are_equal(world_->ids()); });
        world_->run(coord::seconds(1));
        for (const PeerId id : world_->ids()) world_->disk(id).hold_flushes(), settle_history(id);
        flow();
    }

    World& world() { return *world_; }

    void list(std::vector<Choice>& out) const {
        using Kind = Choice::Kind;
        out.clear();
        bool quiet = true;
        list_messages(out);
        quiet = out.empty();
        for (const PeerId id : world_->ids()) {
            const u8 a = static_cast<u8>(id.value);
            const coord::MemoryStorage& disk = world_->disk(id);
            if (!world_->is_up(id)) {
                out.push_back({Kind::restart, a});
                if (left_.wipes > 0) out.push_back({Kind::wipe, a});
                continue;
            }
            if (disk.flushed() > disk.durable()) out.push_back({Kind::disk, a}), quiet = false;
            if (disk.flushed() > disk.durable() + 1) out.push_back({Kind::disk, a, 0, 1});
            if (left_.writes > 0 && world_->life(id) == 1) out.push_back({Kind::write, a});
            const coord::Sequence lost = disk.appended() - disk.durable();
            for (coord::Sequence k = 0; left_.crashes > 0 && k <= lost; k++) {
                out.push_back({Kind::crash, a, 0, static_cast<u8>(k)});
            }
            if (left_.partitions > 0 && !isolated_) out.push_back({Kind::isolate, a});
            const bool follows = (*world_)[id].status().role == Role::following;
            if (left_.hints > 0 && follows) out.push_back({Kind::hint, a});
            if (left_.hand_overs > 0) list_offers(id, out);
        }
        if (isolated_) out.push_back({Kind::heal});
        if (quiet) out.push_back({Kind::wait});
    }

    void list_offers(PeerId id, std::vector<Choice>& out) const {
        const coord::ReplicaStatus status = (*world_)[id].status();
        const bool leads = status.role == Role::leading && status.serving;
        for (const PeerId to : world_->ids()) {
            if (!leads || status.successor != PeerId{} || to == id) continue;
            out.push_back({Choice::Kind::offer, static_cast<u8>(id.value),
                           static_cast<u8>(to.value)});
        }
    }

    void take(Choice choice) {
        const PeerId id{choice.a};
        switch (choice.kind) {
            case Choice::Kind::deliver: deliver(choice); break;
            case Choice::Kind::disk:
                history_[id.value][0] = coord::mix64(history_[id.value][0], 1);
                if (choice.nth == 0) world_->release(id);
                if (choice.nth > 0) world_->release_some(id, choice.nth);
                break;
            case Choice::Kind::write:
                left_.writes -= 1;
                world_->create(id, sessions_[id.value], "/w" + std::to_string(left_.writes));
                break;
            case Choice::Kind::crash: left_.crashes -= 1, crash(id, choice.nth); break;
            case Choice::Kind::restart: restart(id); break;
            case Choice::Kind::isolate:
                left_.partitions -= 1, isolated_ = true;
                world_->isolate(id), world_->lose_on_cut_links();
                break;
            case Choice::Kind::heal: isolated_ = false, world_->heal(); break;
            case Choice::Kind::hint:
                left_.hints -= 1;
                (*world_)[id].forget((*world_)[id].status().leader);
                world_->poll(id);
                break;
            case Choice::Kind::wait: wait(); break;
            case Choice::Kind::wipe:
                left_.wipes -= 1, wiped_ = id;
                world_->wipe(id);
                break;
            case Choice::Kind::offer:
                left_.hand_overs -= 1;
                static_cast<void>((*world_)[id].hand_over(PeerId{choice.b}));
                world_->poll(id);
                break;
        }
        flow();
    }

    u64 hash() const {
        u64 h = coord::mix64(left_.writes * 64 + left_.crashes * 8 + left_.partitions,
                             left_.hand_overs * 65536 + left_.wipes * 256 + left_.hints * 2 +
                                 (isolated_ ? 1u : 0u));
        for (const PeerId id : world_->ids()) h = coord::mix64(h, hash_of(id));
        return coord::mix64(h, hash_of_links() + world_->ledger.promises().size());
    }

    void audit() const {
        for (const PeerId id : world_->ids()) {
            if (world_->is_up(id)) (*world_)[id].audit();
        }
    }

    // Ends the run: every fault stops. Without `missing`, which comes back later; nobody: with all.
    void finish(PeerId missing) {
        World& w = *world_;
        if (missing != PeerId{} && wiped_ != PeerId{} && missing != wiped_) return;
        w.heal();
        std::vector<PeerId> group;
        for (const PeerId id : w.ids()) {
            if (id != missing) group.push_back(id);
            if (id == missing && w.is_up(id)) w.crash(id);
            if (id == missing) continue;
            w.disk(id).stop_holding();
            if (w.is_up(id)) w.poll(id);
            if (!w.is_up(id)) w.start(id);
        }
        if (!w.run_until([&] { return w.are_equal(group); })) {
            w.ledger.violate("a majority does not come to serve: " + w.state());
        }
        for (const PeerId id : group) w.look_for_promises(id);
        w.verify();
    }

private:
    void list_messages(std::vector<Choice>& out) const {
        std::array<std::array<u8, voters_max + 1>, voters_max + 1> seen{};
        for (const Packet& packet : world_->packets) {
            u8& count = seen[packet.from.value][packet.to.value];
            if (count == 0 || bounds_.any_order) {
                out.push_back({Choice::Kind::deliver, static_cast<u8>(packet.from.value),
                               static_cast<u8>(packet.to.value), count});
            }
            count = static_cast<u8>(count + 1);
        }
    }

    void deliver(Choice choice) {
        u8 nth = choice.nth;
        for (std::size_t i = 0; i < world_->packets.size(); i++) {
            const Packet& packet = world_->packets[i];
            if (packet.from != PeerId{choice.a} || packet.to != PeerId{choice.b}) continue;
            if (nth-- > 0) continue;
            u64& chain = history_[choice.b][bounds_.strict ? 0 : choice.a];
            chain = coord::mix64(chain, hash_of(packet));
            world_->deliver_at(i);
            return;
        }
    }

    void crash(PeerId id, std::size_t survivors) {
        world_->crash(id, survivors);
        newest_attempt_[id.value] = 0;
        for (std::size_t i = world_->packets.size(); i-- > 0;) {  // nobody is there to get them
            if (world_->packets[i].to != id) continue;
            world_->packets.erase(world_->packets.begin() + static_cast<std::ptrdiff_t>(i));
        }
    }

    void restart(PeerId id) {
        world_->disk(id).hold_flushes();
        world_->start(id);
        elections_[id.value] = 0;
    }

    // Elections and heartbeats take no time and are not in question.
    void flow() {
        for (int i = 0; i < 10000; i++) {
            const auto next = std::find_if(
                world_->packets.begin(), world_->packets.end(), [this](const Packet& packet) {
                    return comes_at_once(packet.type) || !world_->is_up(packet.to);
                });
            if (next == world_->packets.end()) break;
            world_->deliver_at(static_cast<std::size_t>(next - world_->packets.begin()));
        }
        for (const PeerId id : world_->ids()) settle_history(id);
        for (const Packet& packet : world_->packets) {
            const u64 attempt = packet.message().attempt;
            u64& newest = newest_attempt_[packet.from.value];
            if (is_of_learner(packet.type)) newest = (std::max)(newest, attempt);
        }
    }

    bool is_quiet() const {
        if (!world_->packets.empty()) return false;
        for (const PeerId id : world_->ids()) {
            const coord::MemoryStorage& disk = world_->disk(id);
            if (world_->is_up(id) && disk.flushed() > disk.durable()) return false;
        }
        return true;
    }

    void wait() {
        const u64 before = hash();
        const coord::Time end = world_->now() + coord::milliseconds(1000);
        while (world_->now() < end) {
            coord::Time next = end;
            for (const PeerId id : world_->ids()) {
                if (world_->is_up(id)) next = (std::min)(next, (*world_)[id].next_deadline());
            }
            world_->pass_to((std::max)(next, world_->now() + coord::microseconds(100)));
            flow();
            if (!is_quiet() || hash() != before) return;
        }
    }

    // What has been said to a replica in its present role counts; a new role begins anew.
    void settle_history(PeerId id) {
        if (!world_->is_up(id)) return;
        const u64 elections = (*world_)[id].counters().elections;
        if (elections == elections_[id.value]) return;
        elections_[id.value] = elections;
        history_[id.value].fill(0);
    }

    static bool is_of_learner(MessageType type) {
        return type == MessageType::follower_info || type == MessageType::ack_epoch ||
               type == MessageType::ack || type == MessageType::chunk_request;
    }

    u64 hash_of(const Packet& packet) const {
        const Message m = packet.message();
        const bool of_learner = is_of_learner(m.type);
        const u64 newest = newest_attempt_[of_learner ? m.from.value : m.to.value];
        const u64 behind = m.attempt == 0 ? 1000 : m.attempt > newest ? 999 : newest - m.attempt;
        u64 h = coord::mix64(static_cast<u64>(m.type) * 256 + m.phase, m.epoch);
        for (const u64 field :
             {u64{m.from.value}, u64{m.to.value}, behind, u64{m.leader.value},
              u64{m.accepted_epoch}, u64{m.current_epoch}, m.zxid.value, u64{m.crc},
              m.commit.value, m.digest, m.offset, m.total}) {
            h = coord::mix64(h, field);
        }
        if (m.type == MessageType::hand_over) h = coord::mix64(h, m.sequence);
        return coord::mix64(h, coord::crc32c(m.payload));
    }

    u64 hash_of(PeerId id) const {
        const coord::MemoryStorage& disk = world_->disk(id);
        u64 h = coord::mix64(disk.appended() - disk.durable(), disk.flushed() - disk.durable());
        h = coord::mix64(h, disk.id());
        if (!world_->is_up(id)) return coord::mix64(h, hash_of_disk(id));
        const coord::Replica& replica = (*world_)[id];
        const coord::ReplicaStatus status = replica.status();
        const coord::Log::Epochs& epochs = replica.log().epochs();
        for (const u64 field :
             {u64{static_cast<u8>(status.role)}, u64{status.serving ? 1u : 0u},
              u64{status.leader.value}, u64{status.successor.value}, u64{status.epoch},
             u64{status.accepted_epoch},
              status.last.value, status.durable.value, status.committed.value,
              status.applied.value, u64{replica.log().last().crc}, replica.log().base().value,
              u64{epochs.accepted}, u64{epochs.accepted_from.value}, u64{epochs.current},
              u64{world_->life(id) == 1 ? 1u : 0u}, world_->asked(id)}) {
            h = coord::mix64(h, field);
        }
        if (bounds_.shown && status.role != Role::leading) return h;
        if (bounds_.shown) return coord::mix64(h, hash_of_learners(id));
        for (const u64 chain : history_[id.value]) h = coord::mix64(h, chain);
        return h;
    }
    // Nothing but a poll changes what is shown.
    u64 hash_of_learners(PeerId id) const {
        const coord::Replica& replica = (*world_)[id];
        const std::array<u64, 2> now{world_->life(id), replica.counters().polls};
        Shown& shown = shown_[id.value];
        if (shown.at != now) shown = {now, coord::crc32c(learners_of(replica))};
        return shown.hash;
    }
    // What a leader shows of those who learn from it; not since when they are silent.
    static std::string learners_of(const coord::Replica& replica) {
        std::string json = replica.state_json();
        json.erase(json.find("\"metrics\""));
        json.erase(0, json.find("\"learners\""));
        for (std::size_t at; (at = json.find("silent_ms")) != std::string::npos;) {
            const std::size_t end = json.find_first_of(",}", at);
            if (end == std::string::npos) std::abort();
            json.erase(at, end - at);
        }
        return json;
    }

    // What a replica that is down will come back with.
    u64 hash_of_disk(PeerId id) const {
        struct Sink final : coord::RecoverySink {
            void on_record(coord::Sequence, coord::BytesView record) override {
                h = coord::mix64(h, coord::crc32c(record));
            }
            void on_snapshot(coord::Sequence, coord::BytesView head, std::uint64_t size) override {
                h = coord::mix64(coord::mix64(h, coord::crc32c(head)), size);
            }
            u64 h = 0;
        };
        Sink sink;
        if (world_->disk(id).id() == 0) return 0;  // emptied: it gets an id when it is opened
        static_cast<void>(world_->disk(id).open(sink, {}));
        return coord::mix64(sink.h, world_->life(id) == 1 ? 1u : 0u);
    }

    u64 hash_of_links() const {
        std::array<u64, (voters_max + 1) * (voters_max + 1)> links{};
        for (const Packet& packet : world_->packets) {
            u64& link = links[packet.from.value * (voters_max + 1) + packet.to.value];
            link = bounds_.any_order ? link + hash_of(packet) : coord::mix64(link, hash_of(packet));
        }
        u64 h = 0;
        for (const u64 link : links) h = coord::mix64(h, link);
        return h;
    }

    const Bounds bounds_;
    Bounds left_;
    std::unique_ptr<World> world_;
    std::array<coord::SessionId, voters_max + 1> sessions_;
    std::array<std::array<u64, voters_max + 1>, voters_max + 1> history_{};
    std::array<u64, voters_max + 1> elections_{};
    std::array<u64, voters_max + 1> newest_attempt_{};
    bool isolated_ = false;
    PeerId wiped_;
    struct Shown {
        std::array<u64, 2> at{};  // life and polls
        u64 hash = 0;
    };
    mutable std::array<Shown, voters_max + 1> shown_{};
};

// -------------------------------------------------------------------------------------------------
// The search

// The states seen, each with the number of steps that were left there.
class Seen {
public:
    Seen() : slots_(1u << 16) {}
    void clear() {
        std::fill(slots_.begin(), slots_.end(), 0);
        size_ = 0;
    }
    std::size_t size() const { return size_; }
    // RETURNS false where the state was seen with as many steps left.
    bool insert(u64 hash, u8 left) {
        if (size_ * 2 > slots_.size()) grow();
        u64& slot = find(slots_, hash | 255u);
        if (slot == 0) size_ += 1;
        if (slot != 0 && (slot & 255u) >= left) return false;
        slot = (hash | 255u) ^ 255u ^ left;
        if (slot == 0) slot = 256;
        return true;
    }

private:
    static u64& find(std::vector<u64>& slots, u64 key) {
        std::size_t at = static_cast<std::size_t>(key >> 8) & (slots.size() - 1);
        while (slots[at] != 0 && (slots[at] | 255u) != key) at = (at + 1) & (slots.size() - 1);
        return slots[at];
    }
    void grow() {
        std::vector<u64> larger(slots_.size() * 2);
        for (const u64 slot : slots_) {
            if (slot != 0) find(larger, slot | 255u) = slot;
        }
        slots_.swap(larger);
    }
    std::vector<u64> slots_;
    std::size_t size_ = 0;
};

struct Options {
    Bounds bounds;
    u32 depth = 12;
    u32 from = 2;
    u64 states = 100000000;
    u64 finish = 16;
    double minutes = 60;
    std::string replay;
    bool whole = false;
};

std::vector<Choice> current_path;  // for the handler of SIGABRT: an assertion has tripped

class Search {
public:
    explicit Search(const Options& options) : options_(options) {
        const Inside inside;
        state_.reset(new State(options.bounds));
        arena.save(root_);
    }
    ~Search() {
        const Inside inside;
        state_.reset();
    }
    Search(const Search&) = delete;
    Search& operator=(const Search&) = delete;

    int run() {
        started_ = std::chrono::steady_clock::now();
        std::printf("%u voters, %u writes, %u crashes, %u partitions, %u hints, "
                    "%u hand-overs, %u wipes%s%s%s; from %s\n",
                    options_.bounds.voters, options_.bounds.writes, options_.bounds.crashes,
                    options_.bounds.partitions, options_.bounds.hints,
                    options_.bounds.hand_overs, options_.bounds.wipes,
                    options_.bounds.any_order ? ", any order" : "",
                    options_.bounds.strict ? ", strict" : "",
                    options_.bounds.shown ? ", by what is shown" : "",
                    state_->world().state().c_str());
        const u32 from = options_.whole ? options_.depth : options_.from;
        for (u32 depth = from; depth <= options_.depth; depth++) {
            const bool whole = explore(depth);
            if (violated_) return report();
            std::printf("%s depth %u: %zu states, %llu steps, %llu finished, %.1f s%s\n",
                        whole ? "all of" : "STOPPED in", depth, seen_.size(),
                        static_cast<unsigned long long>(steps_),
                        static_cast<unsigned long long>(finished_.size()), seconds(),
                        whole && !bound_met_ ? "; there is nothing deeper" : "");
            std::printf("longest path %zu\n", longest_);
            std::fflush(stdout);
            stopped_ = !whole;
            if (stopped_) break;
            covered_ = depth;
            if (!bound_met_) break;
        }
        const bool is_all = covered_ > 0 && !bound_met_ && !stopped_;
        if (options_.whole && !is_all) {
            std::printf("no violation, and not all of it: what was not reached is not covered\n");
            return 0;
        }
        std::printf("no violation; every path of up to %u steps is covered%s\n", covered_,
                    !is_all ? "" : options_.bounds.shown ? ", and all within the bounds, as shown"
                                                         : ", and every path within the bounds");
        return 0;
    }

    int replay() {
        const Inside inside;
        std::string token;
        for (const char c : options_.replay + " ") {
            if (c != ' ') {
                token += c;
                continue;
            }
            Choice choice;
            if (!token.empty() && read_choice(token, choice)) step_aloud(choice);
            token.clear();
        }
        for (u32 missing = 0; missing <= options_.bounds.voters; missing++) {
            Arena::Saved here;
            arena.save(here);
            state_->finish(PeerId{missing});
            std::printf("finished without %u: %s\n%s\n", missing,
                        state_->world().state().c_str(), state_->world().objections().c_str());
            if (!state_->world().objections().empty()) return 1;
            arena.restore(here);
        }
        return 0;
    }

private:
    struct Frame {
        Arena::Saved saved;
        std::vector<Choice> choices;
        std::size_t next = 0;
    };

    double seconds() const {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
    }

    // Depth first, to that depth, from the root. RETURNS false when it was given up.
    bool explore(u32 depth) {
        seen_.clear();
        bound_met_ = false;
        if (frames_.size() < depth + 1) frames_.resize(depth + 1);
        arena.restore(root_);
        current_path.clear();
        std::size_t top = 0;
        enter(frames_[0]);
        for (;;) {
            Frame& frame = frames_[top];
            if (frame.next == frame.choices.size()) {
                if (top == 0) return true;
                top -= 1;
                current_path.pop_back();
                continue;
            }
            if (seen_.size() >= options_.states || late()) return false;
            if (frame.next > 0) arena.restore(frame.saved);
            current_path.push_back(frame.choices[frame.next++]);
            const bool fresh = step(depth - static_cast<u32>(current_path.size()));
            if (violated_) return false;
            if (fresh && current_path.size() < depth) {
                enter(frames_[++top]);
                continue;
            }
            bound_met_ = bound_met_ || fresh;
            current_path.pop_back();
        }
    }

    bool late() { return steps_ % 256 == 0 && seconds() > options_.minutes * 60; }

    void enter(Frame& frame) {
        state_->list(frame.choices);
        frame.next = 0;
        arena.save(frame.saved);
    }

    // RETURNS true where it leads to a state that was not seen with so many steps left.
    bool step(u32 left) {
        steps_ += 1;
        u64 hash = 0;
        {
            const Inside inside;
            state_->take(current_path.back());
            hash = state_->hash();
            violated_ = !state_->world().ledger.violations().empty();
        }
        if (violated_) return false;
        const u32 kept = options_.whole ? 1u : (std::min)(left, 254u);  // seen is seen
        if (!seen_.insert(hash, static_cast<u8>(kept))) return false;
        longest_ = (std::max)(longest_, current_path.size());
        {
            const Inside inside;
            state_->audit();
        }
        if (hash % options_.finish == 0 && finished_.insert(hash).second) finish();
        return !violated_;
    }

    void finish() {
        arena.save(before_finish_);
        for (u32 missing = 0; missing <= options_.bounds.voters && !violated_; missing++) {
            {
                const Inside inside;
                state_->finish(PeerId{missing});
                violated_ = !state_->world().ledger.violations().empty();
            }
            finish_missing_ = missing;
            if (!violated_) arena.restore(before_finish_);
        }
    }

    int report() {
        const std::vector<Choice> path = current_path;
        std::printf("VIOLATION after %zu steps, at %zu states of this depth, %llu steps in all, "
                    "%.1f s\n%s", path.size(), seen_.size(),
                    static_cast<unsigned long long>(steps_), seconds(),
                    state_->world().objections().c_str());
        std::printf("finished without replica %u (0: nobody, or not finished)\n", finish_missing_);
        std::printf("--replay=\"%s\"\n", show(path).c_str());
        arena.restore(root_);
        const Inside inside;
        for (const Choice choice : path) step_aloud(choice);
        return 1;
    }

    void step_aloud(Choice choice) {
        World& world = state_->world();
        std::string what;
        if (choice.kind == Choice::Kind::deliver) {
            u8 nth = choice.nth;
            for (const Packet& packet : world.packets) {
                const bool fits = packet.from.value == choice.a && packet.to.value == choice.b;
                if (!fits || nth-- > 0) continue;
                const Message m = packet.message();
                what = std::string(name(m.type)) + " epoch " + std::to_string(m.epoch) + " zxid " +
                       show(m.zxid) + " commit " + show(m.commit);
                break;
            }
        }
        state_->take(choice);
        static const char* const words[] = {"deliver", "disk", "write",   "crash", "restart",
                                            "isolate", "heal", "no leader", "wait", "empty"};
        std::printf("%-6s %-9s %s\n       %s\n", show(choice).c_str(),
                    words[static_cast<std::size_t>(choice.kind)], what.c_str(),
                    world.state().c_str());
        for (const Packet& packet : world.packets) {
            std::printf("         on its way: %u>%u %s\n", packet.from.value, packet.to.value,
                        name(packet.type));
        }
        std::printf("%s", world.objections().c_str());
    }

    const Options options_;
    std::unique_ptr<State> state_;
    Arena::Saved root_;
    Arena::Saved before_finish_;
    std::vector<Frame> frames_;
    Seen seen_;
    std::unordered_set<u64> finished_;
    std::chrono::steady_clock::time_point started_;
    u64 steps_ = 0;
    std::size_t longest_ = 0;
    u32 covered_ = 0;
    u32 finish_missing_ = 0;
    bool bound_met_ = false;
    bool stopped_ = false;
    bool violated_ = false;
};

extern "C" void on_abort(int) {
    arena.is_on = false;
    std::printf("ASSERTION after %zu steps: --replay=\"%s\"\n", current_path.size(),
                show(current_path).c_str());
    std::fflush(stdout);
    std::_Exit(1);
}

bool read_options(int argc, char** argv, Options& options) {
    const auto number = [](const char* text) { return std::strtoull(text, nullptr, 10); };
    for (int i = 1; i < argc; i++) {
        const std::string argument = argv[i];
        const std::size_t equals = argument.find('=');
        const std::string key = argument.substr(0, equals);
        const char* const value = equals == std::string::npos ? "" : argv[i] + equals + 1;
        Bounds& bounds = options.bounds;
        if (key == "--voters") bounds.voters = static_cast<u32>(number(value));
        else if (key == "--writes") bounds.writes = static_cast<u32>(number(value));
        else if (key == "--crashes") bounds.crashes = static_cast<u32>(number(value));
        else if (key == "--partitions") bounds.partitions = static_cast<u32>(number(value));
        else if (key == "--hints") bounds.hints = static_cast<u32>(number(value));
        else if (key == "--hand-overs") bounds.hand_overs = static_cast<u32>(number(value));
        else if (key == "--wipes") bounds.wipes = static_cast<u32>(number(value));
        else if (key == "--depth") options.depth = static_cast<u32>(number(value));
        else if (key == "--from") options.from = static_cast<u32>(number(value));
        else if (key == "--states") options.states = number(value);
        else if (key == "--finish") options.finish = (std::max)(1ull, number(value));
        else if (key == "--minutes") options.minutes = std::atof(value);
        else if (key == "--any-order") bounds.any_order = true;
        else if (key == "--strict") bounds.strict = true;
        else if (key == "--shown") bounds.shown = true;
        else if (key == "--whole") options.whole = true, options.depth = 250;
        else if (key == "--replay") options.replay = value;
        else return false;
    }
    const u32 voters = options.bounds.voters;
    return voters >= 1 && voters <= State::voters_max && options.depth <= 250;
}

}  // namespace exhaustive

int main(int argc, char** argv) {
    exhaustive::Options options;
    if (!exhaustive::read_options(argc, argv, options)) {
        std::fprintf(stderr, "unknown or impossible option; see the head of exhaustive.cpp\n");
        return 2;
    }
    exhaustive::arena.open();
    std::signal(SIGABRT, exhaustive::on_abort);
    exhaustive::Search search(options);
    return options.replay.empty() ? search.run() : search.replay();
}
