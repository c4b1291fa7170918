// An ensemble that a test drives by hand: every message is seen, delivered, held back or lost one
// by one; a disk makes durable what the test says; processes crash and restart; time stands still
// unless it is told to go on. A ledger beside it is told of everything that replicas apply and
// clients are answered, and keeps a list of what no run may show:
//
//   agreement            one history: no fork, no hole, equal entries, equal digests
//   committed durability what a client was told is in the log of every leader of a later epoch
//   single leader        at most one established leader an epoch
//   promises             a replica's durable epochs never fall, not over a restart either
//   process consistency  a replica restarted from its disk is what it was (verify)
//   liveness             once healed, all serve and are equal within a minute (settle)
#pragma once

#include "coord.hpp"

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace paper {

using coord::Bytes;
using coord::BytesView;
using coord::Duration;
using coord::Errc;
using coord::Message;
using coord::MessageType;
using coord::PeerId;
using coord::Role;
using coord::SessionId;
using coord::Time;
using coord::Zxid;

inline std::string show(Zxid zxid) {
    return std::to_string(zxid.epoch()) + "." + std::to_string(zxid.counter());
}

inline std::string show(PeerId id) { return id.value == 0 ? "-" : std::to_string(id.value); }

// -------------------------------------------------------------------------------------------------
// What a run must not show

class Ledger final : public coord::ReplicaObserver {
public:
    struct Promise {              // what a client was told
        Zxid zxid;
        std::uint32_t crc = 0;    // of the entry; 0: not known
        Bytes path;
        Bytes data;
    };

    const std::vector<std::string>& violations() const { return violations_; }
    const std::vector<Promise>& promises() const { return promises_; }
    Zxid applied(PeerId id) const {
        const auto found = lives_.find(id);
        return found == lives_.end() ? Zxid{} : found->second.applied;
    }
    // The most that any replica has ever applied.
    Zxid frontier() const { return entries_.empty() ? Zxid{} : entries_.rbegin()->first; }
    PeerId established(std::uint32_t epoch) const {
        const auto found = established_.find(epoch);
        return found == established_.end() ? PeerId{} : found->second.id;
    }

    void violate(const std::string& what) {
        if (violations_.size() < 20) violations_.push_back(what);
    }

    void started(const coord::Replica& replica) {
        Life& life = lives_[replica.id()];
        life.applied = replica.status().applied;
        if (replica.status().role != Role::failed) compare(replica.id(), replica.status());
    }

    void promise(const Promise& made) { promises_.push_back(made); }

    // After each poll, of the replica that was polled.
    void look_at(const coord::Replica& replica) {
        const coord::ReplicaStatus status = replica.status();
        Life& life = lives_[replica.id()];
        const std::string who = "replica " + show(replica.id());
        if (status.role == Role::failed) {
            if (!life.may_fail) violate(who + " has failed: " + status.reason);
            return;
        }
        if (status.epoch < life.epoch) violate(who + ": its current epoch fell");
        if (status.accepted_epoch < life.accepted) violate(who + ": its accepted epoch fell");
        life.epoch = status.epoch, life.accepted = status.accepted_epoch;
        // A snapshot is of what is committed: it may be in memory before it is durable here.
        const Zxid safe = (std::max)(status.durable, replica.log().snapshot_position().zxid);
        if (status.applied > safe) violate(who + " has applied what it has not durably");
        if (status.role == Role::leading && status.serving) look_at_leader(replica);
    }

    void forget_promise(BytesView path) {  // it has been deleted since
        const auto gone = std::remove_if(promises_.begin(), promises_.end(),
                                         [&](const Promise& made) { return made.path == path; });
        promises_.erase(gone, promises_.end());
    }
    void allow_failure(PeerId id) { lives_[id].may_fail = true; }
    void forbid_failure(PeerId id) { lives_[id].may_fail = false; }
    void lost_its_disk(PeerId id) { lives_[id].epoch = lives_[id].accepted = 0; }

private:
    struct Life {
        Zxid applied;
        std::uint32_t epoch = 0;
        std::uint32_t accepted = 0;
        bool may_fail = false;
    };
    struct Entry {
        Zxid previous;
        std::uint32_t previous_crc = 0;
        SessionId session;
        std::uint64_t cxid = 0;
        coord::OpCode op = coord::OpCode::create;
        Bytes body;
        std::uint64_t digest = 0;
    };
    struct Reign {
        PeerId id;
        Zxid initial;
    };

    void on_applied(PeerId id, const coord::Txn& txn, const coord::Outcome*,
                    std::uint64_t digest) override {
        Life& life = lives_[id];
        const std::string what = "replica " + show(id) + " applied " + show(txn.zxid);
        if (txn.previous != life.applied) {
            violate(what + " after " + show(life.applied) + ": a hole");
        }
        life.applied = txn.zxid;
        const Entry entry{txn.previous, txn.previous_crc, txn.session,     txn.cxid,
                          txn.op,       Bytes(txn.body),  digest};
        const auto [place, fresh] = entries_.emplace(txn.zxid, entry);
        const Entry& known = place->second;
        if (known.previous != entry.previous || known.previous_crc != entry.previous_crc ||
            known.session != entry.session || known.cxid != entry.cxid ||
            known.op != entry.op || known.body != entry.body) {
            violate(what + ": another entry than elsewhere");
        }
        if (known.digest != digest) violate(what + ": another state than elsewhere");
        if (!fresh) return;
        const auto [next, first] = next_.emplace(txn.previous, txn.zxid);
        if (!first && next->second != txn.zxid) {
            violate(what + ": a fork, elsewhere " + show(next->second) + " follows " +
                    show(txn.previous));
        }
    }

    void on_installed(PeerId id, Zxid zxid, std::uint64_t digest) override {
        lives_[id].applied = zxid;
        const auto found = entries_.find(zxid);
        if (found == entries_.end()) {
            violate("replica " + show(id) + " installed a snapshot that nobody has applied");
        } else if (found->second.digest != digest) {
            violate("replica " + show(id) + " installed another state than elsewhere");
        }
    }

    void on_established(PeerId id, std::uint32_t epoch, Zxid initial) override {
        const auto [place, fresh] = established_.emplace(epoch, Reign{id, initial});
        if (!fresh && place->second.id != id) {
            violate("epoch " + std::to_string(epoch) + " has two leaders, " +
                    show(place->second.id) + " and " + show(id));
        }
    }

    void compare(PeerId id, const coord::ReplicaStatus& status) {
        const auto found = entries_.find(status.applied);
        if (found == entries_.end() || found->second.digest == status.digest) return;
        violate("replica " + show(id) + " came back with another state than it had");
    }

    void look_at_leader(const coord::Replica& replica) {
        const std::uint32_t epoch = replica.status().epoch;
        for (const Promise& made : promises_) {
            if (made.zxid.epoch() >= epoch && made.zxid <= replica.log().last().zxid) continue;
            if (made.zxid.epoch() > epoch) continue;  // it does not know yet that it was deposed
            const bool there = made.zxid <= replica.log().base() ||
                               (replica.log().contains(made.zxid) &&
                                (made.crc == 0 || replica.log().crc_at(made.zxid) == made.crc));
            if (there) continue;
            violate("replica " + show(replica.id()) + " leads epoch " + std::to_string(epoch) +
                    " without " + show(made.zxid) + " (" + made.path + "), which was acknowledged");
        }
    }

    std::map<PeerId, Life> lives_;
    std::map<Zxid, Entry> entries_;
    std::map<Zxid, Zxid> next_;
    std::map<std::uint32_t, Reign> established_;
    std::vector<Promise> promises_;
    std::vector<std::string> violations_;
};

// -------------------------------------------------------------------------------------------------
// The ensemble

struct Packet {
    PeerId from;
    PeerId to;
    MessageType type = MessageType::notification;
    Bytes bytes;

    Message message() const {  // its payload points into this packet
        Message decoded;
        static_cast<void>(coord::decode_message(bytes, decoded));
        return decoded;
    }
};

// A request of a client, and how it ended.
struct Call {
    PeerId at;
    Bytes path;
    Bytes data;
    bool done = false;
    Errc error = Errc::ok;
    Zxid zxid;      // of the write, or of the state that was read
    Bytes result;   // what was read
    bool promised = false;
};
using CallPtr = std::shared_ptr<Call>;

constexpr PeerId anybody{};

// What is done with messages of a kind: the newest rule that fits counts.
enum class Fate : std::uint8_t { deliver, hold, lose };

struct Rule {
    Fate fate = Fate::deliver;
    bool every_type = false;
    MessageType type = MessageType::notification;
    PeerId from;  // anybody: all
    PeerId to;
};

struct WorldOptions {
    std::uint32_t voters = 3;
    std::size_t message_bytes_max = 65536;
    coord::Timing timing;
    std::function<void(coord::ReplicaOptions&)> tune;  // sees each one's options before it starts
    // Makes the storage of a life, over something that outlives it; none: a disk in memory.
    std::function<std::unique_ptr<coord::Storage>(PeerId)> storage;
};

class World {
public:
    explicit World(const WorldOptions& options = {}) : options_(options) {
        nodes_.resize(options.voters);
        for (std::uint32_t i = 1; i <= options.voters; i++) {
            nodes_[i - 1].reset(new Node(*this, PeerId{i}, options.message_bytes_max));
        }
    }
    World(const World&) = delete;
    World& operator=(const World&) = delete;

    Ledger ledger;

    // Processes ----------------------------------------------------------------------------------
    std::uint32_t size() const { return options_.voters; }
    std::vector<PeerId> ids() const {
        std::vector<PeerId> all;
        for (std::uint32_t i = 1; i <= size(); i++) all.push_back(PeerId{i});
        return all;
    }
    coord::Replica& operator[](PeerId id) { return COORD_ASSERT(is_up(id)), *node(id).replica; }
    coord::MemoryStorage& disk(PeerId id) { return node(id).disk; }
    bool is_up(PeerId id) const { return node(id).replica != nullptr; }
    std::uint32_t life(PeerId id) const { return node(id).life; }
    Time now() const { return now_; }

    void start(PeerId id) {
        Node& own = node(id);
        COORD_ASSERT(own.replica == nullptr);
        own.life += 1;
        if (options_.storage) own.storage = options_.storage(id);
        coord::Storage& storage = own.storage ? *own.storage : own.disk;
        own.replica.reset(new coord::Replica(options_for(id), storage, own, &ledger));
        ledger.started(*own.replica);
        poll(id);
    }
    void start_all() {
        for (const PeerId id : ids()) {
            if (!is_up(id)) start(id);
        }
    }
    // What is not durable is gone, but for the first `survivors` records of it. What has been sent
    // is still on its way.
    void crash(PeerId id, std::size_t survivors = 0) {
        COORD_ASSERT(is_up(id));
        node(id).replica.reset();
        node(id).storage.reset();
        disk(id).crash(survivors);
        disk(id).stop_holding();
    }
    void crash_all() {
        for (const PeerId id : ids()) {
            if (is_up(id)) crash(id);
        }
        packets.clear();
    }
    // Puts this disk in for the one that was there, and the other way round. Of a process that is
    // down.
    void swap_disk(PeerId id, coord::MemoryStorage& other) {
        COORD_ASSERT(!is_up(id));
        std::swap(disk(id), other);
        ledger.lost_its_disk(id);
    }
    void wipe(PeerId id) {
        coord::MemoryStorage empty;
        swap_disk(id, empty);
    }
    // An older image of the disk comes back.
    void roll_back(PeerId id, coord::Sequence to) {
        COORD_ASSERT(!is_up(id));
        disk(id).roll_back(to);
        ledger.lost_its_disk(id);
    }
    // A second process under the same id: what is sent to the one reaches both.
    coord::Replica& start_twin(PeerId id, coord::Storage& storage) {
        Node& own = node(id);
        own.life += 1;
        own.twin.reset(new coord::Replica(options_for(id), storage, own));
        return *own.twin;
    }
    void stop_twin(PeerId id) { node(id).twin.reset(); }

    // Steps by hand ------------------------------------------------------------------------------
    std::deque<Packet> packets;  // sent, neither delivered nor lost
    std::function<bool(const Packet&)> eats;  // what a path loses, whatever the rules say
    std::function<void(Packet&)> rewrites;    // what a path makes of a message

    void poll(PeerId id) {
        node(id).replica->poll(now_, wall_ms);
        after_poll(id);
    }
    // Makes durable what was flushed, and lets the replica see it.
    void release(PeerId id) {
        disk(id).release();
        poll(id);
    }
    // The same for the first `count` records of it.
    void release_some(PeerId id, coord::Sequence count) {
        disk(id).release(disk(id).durable() + count);
        poll(id);
    }
    std::size_t count(MessageType type, PeerId from, PeerId to) const {
        std::size_t found = 0;
        for (const Packet& packet : packets) found += fits(packet, type, from, to) ? 1u : 0u;
        return found;
    }
    const Packet* first(MessageType type, PeerId from, PeerId to) const {
        for (const Packet& packet : packets) {
            if (fits(packet, type, from, to)) return &packet;
        }
        return nullptr;
    }
    // Delivers the first of them; its receiver is polled. RETURNS false where there is none.
    bool deliver(MessageType type, PeerId from, PeerId to) {
        for (std::size_t i = 0; i < packets.size(); i++) {
            if (!fits(packets[i], type, from, to)) continue;
            deliver_at(i);
            return true;
        }
        return false;
    }
    // Takes a packet out of the network and hands it over, unless its receiver is down.
    void deliver_at(std::size_t place) {
        const Packet packet = std::move(packets[place]);
        packets.erase(packets.begin() + static_cast<std::ptrdiff_t>(place));
        deliver_copy(packet);
    }
    void deliver_copy(const Packet& packet) {
        coord::Replica* const twin = node(packet.to).twin.get();
        if (twin != nullptr && !is_cut(packet.from, packet.to)) {
            twin->receive(packet.from, packet.bytes);
            twin->poll(now_, wall_ms);
        }
        if (!is_up(packet.to) || is_cut(packet.from, packet.to)) return;
        node(packet.to).replica->receive(packet.from, packet.bytes);
        poll(packet.to);
    }
    std::size_t lose(MessageType type, PeerId from, PeerId to) {
        return erase([&](const Packet& packet) { return fits(packet, type, from, to); });
    }
    void lose_all() { packets.clear(); }

    // The network --------------------------------------------------------------------------------
    void cut_one_way(PeerId from, PeerId to) { node(from).cut |= bit(to); }
    void cut(PeerId a, PeerId b) { cut_one_way(a, b), cut_one_way(b, a); }
    void isolate(PeerId id) {
        for (const PeerId other : ids()) {
            if (other != id) cut(id, other);
        }
    }
    // What was on its way over a link that is cut is lost.
    void lose_on_cut_links() {
        erase([this](const Packet& packet) { return is_cut(packet.from, packet.to); });
    }
    void heal() {
        for (const auto& each : nodes_) each->cut = 0;
    }
    bool is_cut(PeerId from, PeerId to) const { return (node(from).cut & bit(to)) != 0; }
    void rule(Fate fate, MessageType type, PeerId from, PeerId to) {
        rules_.push_back(Rule{fate, false, type, from, to});
    }
    void hold(MessageType type, PeerId from, PeerId to) { rule(Fate::hold, type, from, to); }
    void lose_from_now(MessageType type, PeerId from, PeerId to) {
        rule(Fate::lose, type, from, to);
    }
    void hold_link(PeerId from, PeerId to) {
        rules_.push_back(Rule{Fate::hold, true, MessageType::notification, from, to});
    }
    void no_rules() { rules_.clear(); }
    // Replicas that time passes by: not polled in run, what is sent to them waits.
    void freeze(PeerId id) { node(id).frozen = true; }
    void thaw(PeerId id) { node(id).frozen = false; }

    // Time ---------------------------------------------------------------------------------------
    std::int64_t wall_ms = 1;  // the same all the time, so that entries do not depend on it
    static constexpr int deliveries_max = 20000;

    // Delivers what no rule holds, in the order of sending; polls whom a deadline asks for.
    bool run_until(const std::function<bool()>& condition, Duration limit = coord::seconds(60)) {
        const Time end = now_ + limit;
        int deliveries = 0;  // without any time passing
        while (!condition()) {
            if (deliveries < deliveries_max && deliver_next()) {
                deliveries += 1;
                continue;
            }
            if (deliveries == deliveries_max) ledger.violate("messages without end: " + state());
            if (now_ >= end || deliveries == deliveries_max) return false;
            deliveries = 0;
            Time next = end;
            for (const auto& each : nodes_) {
                if (each->twin) next = (std::min)(next, each->twin->next_deadline());
                if (!each->replica || each->frozen) continue;
                next = (std::min)(next, each->replica->next_deadline());
            }
            pass_to((std::min)(end, (std::max)(next, now_ + coord::microseconds(100))));
        }
        return true;
    }
    void run(Duration duration) {
        run_until([] { return false; }, duration);
    }
    // As long as something can be delivered, and no time.
    void flow() {
        for (int i = 0; i < deliveries_max && deliver_next(); i++) {}
    }
    void pass_to(Time time) {
        now_ = (std::max)(now_, time);
        for (const PeerId id : ids()) {
            coord::Replica* const twin = node(id).twin.get();
            if (twin != nullptr && twin->next_deadline() <= now_) twin->poll(now_, wall_ms);
            if (!is_up(id) || node(id).frozen) continue;
            if ((*this)[id].next_deadline() <= now_) poll(id);
        }
    }

    // Clients ------------------------------------------------------------------------------------
    PeerId leader() const {  // that serves, of the highest epoch; or nobody
        PeerId best;
        std::uint32_t epoch = 0;
        for (const auto& each : nodes_) {
            if (!each->replica) continue;
            const coord::ReplicaStatus status = each->replica->status();
            if (status.role != Role::leading || !status.serving || status.epoch < epoch) continue;
            best = each->id, epoch = status.epoch;
        }
        return best;
    }
    bool leads(PeerId id) { return leader() == id; }
    bool serves(PeerId id) const { return is_up(id) && node(id).replica->status().serving; }
    Zxid last(PeerId id) { return (*this)[id].status().last; }

    // RETURNS session 0 where it did not open within a minute.
    SessionId open(PeerId at, Duration timeout = coord::seconds(3600)) {
        auto opened = std::make_shared<SessionId>();
        (*this)[at].open_session({timeout}, [opened](coord::Result<SessionId> id) {
            if (id) *opened = *id;
        });
        run_until([opened] { return *opened != SessionId{}; });
        return *opened;
    }
    // Hands the request over; nothing is polled.
    CallPtr ask(coord::Request::Kind kind, PeerId at, SessionId session, BytesView path,
                BytesView data = {}, coord::CreateMode mode = coord::CreateMode::persistent) {
        auto call = std::make_shared<Call>();
        call->at = at, call->path = Bytes(path), call->data = Bytes(data);
        coord::Request request;
        request.kind = kind, request.path = path, request.data = data, request.mode = mode;
        request.done = completion(kind, call);
        (*this)[at].submit(session, std::move(request));
        calls_.push_back(call);
        return call;
    }
    CallPtr create(PeerId at, SessionId session, BytesView path, BytesView data = {}) {
        CallPtr call = ask(coord::Request::Kind::create, at, session, path, data);
        poll(at);
        return call;
    }
    // The same, and lets everything go on until it is acknowledged.
    bool write(PeerId at, SessionId session, BytesView path, BytesView data = {}) {
        const CallPtr call = create(at, session, path, data);
        return run_until([call] { return call->done; }) && call->error == Errc::ok;
    }
    // Requests that this life of a replica still owes an answer.
    std::uint64_t asked(PeerId id) const {
        std::uint64_t open = 0;
        for (const CallPtr& call : calls_) open += call->at == id && !call->done ? 1u : 0u;
        return open;
    }
    bool has(PeerId id, BytesView path) { return (*this)[id].tree().contains(path); }

    // Judgement ----------------------------------------------------------------------------------
    // Lets every fault end and everything go on. RETURNS "" when all serve and are equal, and what
    // the ledger objects to or what is missing otherwise.
    std::string settle(Duration limit = coord::seconds(60)) {
        heal(), no_rules();
        for (const PeerId id : ids()) {
            thaw(id);
            disk(id).stop_holding();
            if (is_up(id)) poll(id);
        }
        start_all();
        const bool equal = run_until([this] { return are_equal(ids()); }, limit);
        if (!equal) ledger.violate("not all are in step after everything was healed: " + state());
        return objections();
    }
    // Settles; looks for every acknowledged write at every replica; restarts all from their disks,
    // settles and looks again.
    std::string verify() {
        for (int i = 0; i < 2 && settle().empty(); i++) {
            look_for_promises();
            const Zxid before = ledger.frontier();
            for (const PeerId id : ids()) (*this)[id].audit();
            crash_all();
            start_all();
            if (!settle().empty()) break;
            if (ledger.frontier() < before) ledger.violate("the history has become shorter");
            look_for_promises();
        }
        return objections();
    }
    bool are_equal(const std::vector<PeerId>& group) const {
        const coord::ReplicaStatus one = node(group.front()).replica->status();
        for (const PeerId id : group) {
            const coord::ReplicaStatus status = node(id).replica->status();
            const bool in_step = status.serving && status.applied == status.last &&
                                 status.durable == status.last;
            if (!in_step || status.last != one.last || status.digest != one.digest ||
                status.epoch != one.epoch) {
                return false;
            }
        }
        return true;
    }
    std::string objections() const {
        std::string all;
        for (const std::string& each : ledger.violations()) all += each + "\n";
        return all;
    }
    std::string state() const {
        std::string all;
        for (const auto& each : nodes_) {
            all += (all.empty() ? "" : "; ") + show(each->id) + ": ";
            if (!each->replica) {
                all += "down";
                continue;
            }
            const coord::ReplicaStatus status = each->replica->status();
            all += std::string(name(status.role)) + (status.serving ? " serving" : "") + " epoch " +
                   std::to_string(status.epoch) + "/" + std::to_string(status.accepted_epoch) +
                   " last " + show(status.last) + " durable " + show(status.durable) +
                   " committed " + show(status.committed) + " applied " + show(status.applied);
        }
        return all;
    }
    // Requests whose replica has crashed never end.
    void look_for_promises(PeerId id) {
        for (const Ledger::Promise& made : ledger.promises()) {
            const auto found = (*this)[id].tree().find(made.path);
            if (found && found->data == made.data) continue;
            ledger.violate("replica " + show(id) + " has not " + made.path +
                           ", which was acknowledged");
        }
    }
    void look_for_promises() {
        for (const PeerId id : ids()) look_for_promises(id);
    }

private:
    struct Node final : coord::Transport {
        Node(World& w, PeerId own, std::size_t bytes_max)
            : world(w), id(own), message_bytes(bytes_max) {}
        void send(PeerId to, BytesView bytes) override { world.send(id, to, bytes); }
        std::size_t message_bytes_max() const override { return message_bytes; }

        World& world;
        PeerId id;
        std::size_t message_bytes;
        coord::MemoryStorage disk;
        std::unique_ptr<coord::Storage> storage;
        std::unique_ptr<coord::Replica> replica;
        std::unique_ptr<coord::Replica> twin;
        std::uint32_t life = 0;
        std::uint64_t cut = 0;   // bits of those that it does not reach
        bool frozen = false;
    };

    coord::ReplicaOptions options_for(PeerId id) const {
        coord::ReplicaOptions replica;
        replica.id = id, replica.voters = ids();
        replica.timing = options_.timing;
        replica.ensemble = 7;
        replica.entropy = node(id).life * 1000 + id.value;
        if (options_.tune) options_.tune(replica);
        return replica;
    }
    static std::uint64_t bit(PeerId id) { return std::uint64_t{1} << id.value; }
    Node& node(PeerId id) const {
        COORD_ASSERT(id.value >= 1 && id.value <= nodes_.size());
        return *nodes_[id.value - 1];
    }
    static bool fits(const Packet& packet, MessageType type, PeerId from, PeerId to) {
        return packet.type == type && (from == anybody || packet.from == from) &&
               (to == anybody || packet.to == to);
    }
    template <class Predicate>
    std::size_t erase(Predicate&& predicate) {
        const auto gone = std::remove_if(packets.begin(), packets.end(), predicate);
        const auto lost = static_cast<std::size_t>(packets.end() - gone);
        packets.erase(gone, packets.end());
        return lost;
    }
    Fate fate_of(const Packet& packet) const {
        for (std::size_t i = rules_.size(); i-- > 0;) {
            const Rule& each = rules_[i];
            const bool ends = (each.from == anybody || each.from == packet.from) &&
                              (each.to == anybody || each.to == packet.to);
            if (ends && (each.every_type || each.type == packet.type)) return each.fate;
        }
        return Fate::deliver;
    }
    void send(PeerId from, PeerId to, BytesView bytes) {
        if (is_cut(from, to)) return;
        Packet packet{from, to, MessageType::notification, Bytes(bytes)};
        packet.type = packet.message().type;
        if (fate_of(packet) == Fate::lose || (eats && eats(packet))) return;
        if (rewrites) rewrites(packet);
        packets.push_back(std::move(packet));
    }
    bool deliver_next() {
        for (std::size_t i = 0; i < packets.size(); i++) {
            if (fate_of(packets[i]) != Fate::deliver || node(packets[i].to).frozen) continue;
            deliver_at(i);
            return true;
        }
        return false;
    }
    void after_poll(PeerId id) {
        coord::Replica& replica = *node(id).replica;
        for (std::size_t i = 0; i < calls_.size(); i++) {
            const CallPtr call = calls_[i];
            if (call->promised || !call->done || call->at != id) continue;
            call->promised = true;
            if (call->error != Errc::ok || call->zxid == Zxid{} || !call->result.empty()) continue;
            Ledger::Promise made{call->zxid, 0, call->path, call->data};
            if (replica.log().contains(made.zxid)) made.crc = replica.log().crc_at(made.zxid);
            ledger.promise(made);
        }
        ledger.look_at(replica);
    }
    static coord::Completion completion(coord::Request::Kind kind, const CallPtr& call) {
        using Kind = coord::Request::Kind;
        if (kind == Kind::create) {
            return coord::OnCreated([call](coord::Result<coord::Created> r) {
                call->done = true, call->error = r.error();
                if (r) call->zxid = r->stat.czxid, call->path = r->path;
            });
        }
        if (kind == Kind::get) {
            return coord::OnData([call](coord::Result<coord::Data> r) {
                call->done = true, call->error = r.error();
                call->result = r ? "=" + r->bytes : "none";
                if (r) call->zxid = r->zxid;
            });
        }
        return coord::OnDone([call](coord::Result<void> r) {
            call->done = true, call->error = r.error();
        });
    }

    const WorldOptions options_;
    std::vector<std::unique_ptr<Node>> nodes_;
    std::vector<Rule> rules_;
    std::vector<CallPtr> calls_;
    Time now_{1000000000};
};

}  // namespace paper
