// Three replicas on simulated disks, driven by hand: every call of every disk's port is a step that
// has a number and a name, and the power of a replica can fail before or after any of them, in the
// midst of a poll: nothing that it would send or tell after that is sent or told.
#pragma once

#include "checkers.hpp"
#include "simulated_disk.hpp"

#include <deque>
#include <functional>
#include <memory>

namespace crash {

using coord::Bytes;
using coord::BytesView;
using coord::Duration;
using coord::Errc;
using coord::FileId;
using coord::Message;
using coord::MessageType;
using coord::PeerId;
using coord::Result;
using coord::Role;
using coord::SessionId;
using coord::Time;
using coord::Zxid;
using sim::Checker;
using support::SimulatedFiles;

using u32 = std::uint32_t;
using u64 = std::uint64_t;

// -------------------------------------------------------------------------------------------------
// Durable steps

constexpr std::size_t durable_steps = 17;  // number 0: what is none
constexpr u32 W(u32 number) { return u32{1} << number; }
inline const char* name_of_step(std::size_t number) {
    static const char* const names[durable_steps] = {
        "reads, and what changes nothing",
        "append record",
        "sync of the segment, and the mark",
        "the next segment: spare, header, name, directory",
        "accepted epoch's record",
        "current epoch's record",
        "truncation's record; a torn tail cut off",
        "snapshot written, and read again",
        "snapshot synced",
        "snapshot renamed",
        "snapshot's directory, and its marker",
        "old snapshot removed",
        "old segment removed or made a spare",
        "lock",
        "identity: birth, starting over, admits",
        "chunk of a snapshot between two replicas",
        "snapshot installed in place of the log",
    };
    return names[number];
}

// The port of one disk. Each call is a step; it belongs to one or more of the durable steps.
class Port final : public coord::Files {
public:
    explicit Port(SimulatedFiles& disk) : disk_(disk) {}

    bool is_armed = false;      // steps are counted
    bool is_dead = false;       // the power has failed
    bool is_starting = false;   // the storage is being opened
    bool dies_at_log = false;   // the power fails before the next sync of a segment,
    bool is_torn = false;       // and that has happened
    u64 cut_at = 0;             // or at this step,
    bool cut_after = false;     // before it or after it
    std::vector<u32> steps;     // the durable steps of each one
    std::function<void(const std::string&)> trace;

    void begin_life() {
        is_dead = is_torn = is_birth_ = is_install_ = false;
        paths_.clear(), unsynced_.clear(), names_ = 0;
    }
    // A step that is no call: RETURNS its number, or 0 where the power fails before it.
    u64 begin_step(u32 what, const std::string& text) {
        if (is_dead) return 0;
        if (!is_armed) return UINT64_MAX;
        steps.push_back(what);
        if (trace) trace("step " + std::to_string(steps.size()) + ": " + text);
        is_dead = steps.size() == cut_at && !cut_after;
        return is_dead ? 0 : steps.size();
    }
    void end_step(u64 number) { is_dead = is_dead || (number == cut_at && cut_after); }

    Result<FileId> open(BytesView view, Mode mode) override {
        const std::string path(view);
        u32 what = W(0);
        if (mode != Mode::read && is(path, "spare.")) what = W(3) | birth();
        if (mode == Mode::write && is(path, "log.") && !is_starting) what = W(3);
        if (mode == Mode::create && is(path, "snapshot.tmp")) what = W(7);
        if (mode == Mode::create && (is(path, "mark") || is(path, "over."))) what = W(14);
        if (what == W(7)) begun_at_ = steps.size();
        Result<FileId> opened = Errc::storage_failed;
        if (const u64 step = begin_step(what, "open " + path)) {
            opened = disk_.open(view, mode);
            if (opened) paths_[opened->value] = path;
            end_step(step);
        }
        return opened;
    }
    void close(FileId file) override {
        if (!is_dead) disk_.close(file);
    }
    Result<u64> size(FileId file) override {
        const u64 step = begin_step(W(0), "size of " + path_of(file));
        if (step == 0) return Errc::storage_failed;
        const Result<u64> size = disk_.size(file);
        end_step(step);
        return size;
    }
    Errc read(FileId file, u64 offset, std::size_t size, Bytes& out) override {
        const std::string& path = path_of(file);
        u32 what = W(0);
        if (!is_starting && is(path, "snapshot.")) what = W(is(path, "snapshot.tmp") ? 7 : 15);
        return call(what, "read " + path, [&] { return disk_.read(file, offset, size, out); });
    }
    Errc write(FileId file, u64 offset, BytesView bytes) override {
        const std::string& path = path_of(file);
        const u32 what = name_write(path, offset, bytes);
        return call(what, "write " + path, [&] { return disk_.write(file, offset, bytes); });
    }
    Errc allocate(FileId file, u64 size) override {
        return call(W(3) | birth(), "allocate " + path_of(file),
                    [&] { return disk_.allocate(file, size); });
    }
    Errc sync(FileId file) override {
        const std::string& path = path_of(file);
        u32 what = W(14);
        if (is(path, "log.")) what = W(2) | unsynced_[path];
        if (is(path, "spare.")) what = W(3) | birth();
        if (is(path, "snapshot.")) what = W(8) | install();
        if (is(path, "log.") && dies_at_log && !is_dead) is_dead = is_torn = true;
        unsynced_.erase(path);
        return call(what, "sync " + path, [&] { return disk_.sync(file); });
    }
    Errc rename(BytesView from, BytesView to) override {
        u32 what = W(14), later = W(14);
        if (is(to, "log.")) what = later = W(3) | birth();
        if (is(to, "spare.")) what = later = W(12);
        if (is(to, "snapshot.")) what = W(9) | install(), later = W(10) | install();
        names_ |= later;
        return call(what, "rename " + Bytes(from) + " to " + Bytes(to),
                    [&] { return disk_.rename(from, to); });
    }
    Errc remove(BytesView path) override {
        u32 what = W(11);
        if (is(path, "snapshot.tmp")) what = W(7);
        if (is(path, "log.") || is(path, "spare.")) what = W(12);
        names_ |= what;
        return call(what, "remove " + Bytes(path), [&] { return disk_.remove(path); });
    }
    Errc make_directory(BytesView path) override {
        return call(W(0), "make " + Bytes(path), [&] { return disk_.make_directory(path); });
    }
    Errc sync_directory(BytesView path) override {
        if (path.size() > 3 && path.substr(path.size() - 3) == "/..") is_birth_ = true;
        const u32 what = (names_ == 0 ? W(0) : names_) | birth();
        names_ = 0;
        return call(what, "sync " + Bytes(path), [&] { return disk_.sync_directory(path); });
    }
    Errc list(BytesView path, std::vector<Bytes>& names) override {
        return call(W(0), "list " + Bytes(path), [&] { return disk_.list(path, names); });
    }
    Result<FileId> lock(BytesView path) override {
        const u64 step = begin_step(W(13), "lock " + Bytes(path));
        if (step == 0) return Errc::storage_failed;
        const Result<FileId> locked = disk_.lock(path);
        if (locked) paths_[locked->value] = Bytes(path);
        end_step(step);
        return locked;
    }
    const char* error_text() const override { return is_dead ? "no power" : disk_.error_text(); }

private:
    template <class Call>
    Errc call(u32 what, const std::string& text, Call&& make) {
        const u64 step = begin_step(what, text);
        if (step == 0) return Errc::storage_failed;
        const Errc error = make();
        end_step(step);
        return error;
    }
    static bool is(BytesView path, BytesView kind) {
        const std::size_t at = path.rfind('/') + 1;
        return path.substr(at, kind.size()) == kind;
    }
    const std::string& path_of(FileId file) { return paths_[file.value]; }
    u32 birth() const { return is_birth_ ? W(14) : 0; }
    u32 install() const { return is_install_ ? W(16) : 0; }

    u32 name_write(const std::string& path, u64 offset, BytesView bytes) {
        if (is(path, "spare.")) return W(3) | birth();
        if (is(path, "mark")) return is_birth_ ? W(14) : W(2);
        if (is(path, "snapshot.")) {
            const std::size_t replaces = 56;  // FORMAT: where a header says so
            if (offset == 0 && bytes.size() == 64 && bytes[replaces] != 0) begin_install();
            return W(7) | install();
        }
        const bool is_cut = bytes.find_first_not_of('\0') == BytesView::npos;
        const u32 what = is_cut ? W(6) : name_frames(bytes);
        is_birth_ = false;
        if ((what & W(16)) != 0) is_install_ = false;
        unsynced_[path] |= what & ~W(1);
        return what;
    }
    // It is an installation from its beginning on.
    void begin_install() {
        is_install_ = true;
        for (std::size_t i = begun_at_; is_armed && i < steps.size(); i++) steps[i] |= W(16);
    }
    static u32 name_frames(BytesView bytes) {
        u32 what = 0;
        while (bytes.size() >= 36) {
            coord::Reader frame(bytes);
            const std::size_t size = frame.u32();
            const char kind = bytes[28];
            if (kind == 0 || size > bytes.size() - 36) break;
            const BytesView body = bytes.substr(36, size);
            if (kind == 2) what |= W(body.back() != 0 ? 16 : 10);
            if (kind == 1) what |= name_record(body);
            bytes.remove_prefix(36 + size);
        }
        return what == 0 ? W(0) : what;
    }
    static u32 name_record(BytesView body) {
        switch (static_cast<coord::RecordKind>(body[8])) {
            case coord::RecordKind::truncate: return W(6);
            case coord::RecordKind::accepted: return W(4);
            case coord::RecordKind::current: return W(5);
            case coord::RecordKind::base: return W(16);
            case coord::RecordKind::entry: break;
        }
        const auto op = static_cast<coord::OpCode>(body[coord::entry_header_bytes - 1]);
        return W(1) | (op == coord::OpCode::admit ? W(14) : 0);
    }

    SimulatedFiles& disk_;
    std::map<u32, std::string> paths_;      // of open files
    std::map<std::string, u32> unsynced_;   // what has been written since a file's last sync
    u32 names_ = 0;                         // what the next sync of the directory is for
    std::size_t begun_at_ = 0;              // the step before a snapshot's first
    bool is_birth_ = false;
    bool is_install_ = false;
};

// Ways in which what is pending survives. The mark is not synced for long times and only its newest
// content matters much: it is kept, but where nothing is, or lost alone.
inline std::vector<std::vector<bool>> choices_of(const SimulatedFiles& disk) {
    constexpr std::size_t subsets_max = 4;
    const std::vector<std::string> paths = disk.pending_paths();
    std::vector<bool> marks(paths.size());
    std::vector<std::size_t> others;
    for (std::size_t i = 0; i < paths.size(); i++) {
        const bool is_mark = paths[i].size() > 4 && paths[i].substr(paths[i].size() - 4) == "mark";
        marks[i] = is_mark;
        if (!is_mark) others.push_back(i);
    }
    std::vector<bool> all(paths.size(), true), all_but_marks(paths.size(), true);
    for (std::size_t i = 0; i < paths.size(); i++) all_but_marks[i] = !marks[i];
    std::vector<std::vector<bool>> out{std::vector<bool>(paths.size()), all, all_but_marks};
    const std::size_t count = others.size();
    for (std::size_t mask = 0; count <= subsets_max && mask < std::size_t{1} << count; mask++) {
        out.push_back(marks);
        for (std::size_t i = 0; i < count; i++) out.back()[others[i]] = (mask >> i & 1) != 0;
    }
    for (std::size_t i = 0; count > subsets_max && i < count; i++) {
        std::vector<bool> prefix = marks, alone = marks, lost = all;
        for (std::size_t j = 0; j < i; j++) prefix[others[j]] = true;
        alone[others[i]] = true, lost[others[i]] = false;
        out.insert(out.end(), {prefix, alone, lost});
    }
    return out;
}

// Those of them that differ in what is left.
inline std::vector<std::vector<bool>> distinct_choices(const SimulatedFiles& disk) {
    std::vector<std::vector<bool>> out;
    std::set<u64> seen;
    for (const std::vector<bool>& kept : choices_of(disk)) {
        SimulatedFiles after = disk;
        after.cut_power(kept);
        u64 hash = 1;
        for (const std::string& path : after.paths()) {
            hash = coord::hash64(after.contents(path), coord::hash64(path, hash));
        }
        if (seen.insert(hash).second) out.push_back(kept);
    }
    return out;
}

// What BackgroundStorage does, without a thread: changes wait until the disk gets to work, and by
// then messages have gone out and come in.
class LateStorage final : public coord::Storage {
public:
    using Sequence = coord::Sequence;
    explicit LateStorage(coord::Storage& inner) : inner_(inner) {}

    bool has_work() const { return !changes_.empty(); }
    void work() {  // up to the end of a flush
        for (bool is_flushed = false; !is_flushed && has_work();) {
            const Change change = std::move(changes_.front());
            changes_.pop_front();
            is_flushed = change.kind == Kind::flush;
            is_failed_ = is_failed_ || make(change) != Errc::ok;
        }
    }

    Errc open(coord::RecoverySink& sink, const coord::StorageOwner& owner) override {
        const Errc error = inner_.open(sink, owner);
        appended_ = inner_.appended();
        return error;
    }
    Errc start_over(u64 entropy) override {
        const Errc error = inner_.start_over(entropy);
        appended_ = inner_.appended();
        return error;
    }
    bool may_found() const override { return inner_.may_found(); }
    Errc append(BytesView record) override {
        appended_ += 1;
        return put({Kind::append, Bytes(record), 0, false});
    }
    Errc begin_snapshot() override { return put({Kind::begin, {}, 0, false}); }
    Errc write_snapshot(BytesView piece) override {
        return put({Kind::write, Bytes(piece), 0, false});
    }
    Errc end_snapshot(Sequence first_needed, bool replaces) override {
        appended_ += 1;
        return put({Kind::end, {}, first_needed, replaces});
    }
    Errc read_snapshot(Sequence snapshot, u64 offset, std::size_t size, Bytes& out) override {
        if (has_work()) return Errc::throttled_op;
        return inner_.read_snapshot(snapshot, offset, size, out);
    }
    Errc flush() override { return put({Kind::flush, {}, 0, false}); }
    Sequence appended() const override { return appended_; }
    Sequence durable() const override { return inner_.durable(); }
    Errc health() const override { return is_failed_ ? Errc::storage_failed : inner_.health(); }
    bool has_room() const override { return inner_.has_room(); }
    u64 id() const override { return inner_.id(); }

private:
    enum class Kind : std::uint8_t { append, begin, write, end, flush };
    struct Change {
        Kind kind = Kind::flush;
        Bytes bytes;
        Sequence first_needed = 0;
        bool replaces = false;
    };
    Errc put(Change&& change) {
        changes_.push_back(std::move(change));
        return health();
    }
    Errc make(const Change& change) {
        switch (change.kind) {
            case Kind::append: return inner_.append(change.bytes);
            case Kind::begin: return inner_.begin_snapshot();
            case Kind::write: return inner_.write_snapshot(change.bytes);
            case Kind::end: return inner_.end_snapshot(change.first_needed, change.replaces);
            case Kind::flush: return inner_.flush();
        }
        return Errc::storage_failed;
    }
    coord::Storage& inner_;
    std::deque<Change> changes_;
    Sequence appended_ = 0;
    bool is_failed_ = false;
};

// -------------------------------------------------------------------------------------------------
// The ensemble

struct Tuning {
    u32 snapshot_every = 10000;
    u32 entries_kept = 1000;
    u32 snapshots_kept = 1;
    u64 segment_bytes = 4096;
    std::size_t sector = 512;
    bool is_late = false;    // disks work when no message is on its way, not in a poll
};

// What a replica has said of its disk to others.
struct Told {
    u32 accepted = 0;
    u32 current = 0;
    Zxid zxid;
};

// Where the power fails, and what comes of it.
struct Cut {
    u32 victim = 0;          // 0: nowhere
    u64 step = 0;
    bool is_after = false;
    bool is_all = false;     // of all three at that moment
    bool others_keep = false;  // what is pending at the other two survives
    std::size_t choice = 0;  // of what is pending at the victim
    u32 way = 0;             // how it goes on, see crash_points.cpp
    u64 again = 0;           // and before this step of the victim's recovery once more; 0: not
    bool again_keeps = false;  // what is pending then survives
};

class World;

struct Node final : coord::Transport {
    Node(World& w, u32 n) : world(w), id(n) {}
    void send(PeerId to, BytesView bytes) override;
    std::size_t message_bytes_max() const override { return 1024; }
    bool is_up() const { return replica != nullptr; }

    World& world;
    PeerId id;
    SimulatedFiles disk;
    Port port{disk};
    std::unique_ptr<coord::FileStorage> storage;
    std::unique_ptr<LateStorage> late;
    std::unique_ptr<coord::Replica> replica;
    u32 life = 0;
    bool is_isolated = false;
    bool may_be_damaged = false;   // at its next start,
    bool was_damaged = false;      // and at any one before
    bool is_opening = false;
    SessionId session;             // of its client; 0: none
    u32 waiting = 0;               // for answers
    Told told;
};

// What three replicas leave behind, and everybody knows of them.
struct Base {
    SimulatedFiles disks[3];
    Told told[3];
    u32 lives[3] = {0, 0, 0};
    Checker checker{};
    coord::VoterTable table;
    Time now{1000000000};
};

class World : private coord::ReplicaObserver {
public:
    World(const Tuning& tuning, const Base& base, const Cut& cut)
        : checker(base.checker), table(base.table), tuning_(tuning), cut_(cut), now_(base.now) {
        for (u32 i = 0; i < 3; i++) {
            nodes_[i].reset(new Node(*this, i + 1));
            Node& node = *nodes_[i];
            node.disk = base.disks[i], node.told = base.told[i], node.life = base.lives[i];
            node.disk.sector = tuning.sector;
        }
    }
    ~World() override {
        for (const auto& each : nodes_) each->replica.reset();
    }
    World(const World&) = delete;
    World& operator=(const World&) = delete;

    Checker checker;
    coord::VoterTable table;   // as far as anybody has applied
    std::function<void(const std::string&)> trace;

    Node& node(u32 id) { return *nodes_[id - 1]; }
    bool is_interrupted() const { return is_interrupted_; }   // the power has failed as told
    std::size_t choices() const { return choices_; }          // at the victim, when it did
    bool is_stopped() const { return is_interrupted_ || !checker.ok(); }
    void go_on_after_cut() { is_interrupted_ = false; }
    Time now() const { return now_; }

    // ---- Power

    void arm() {
        for (const auto& each : nodes_) {
            each->port.is_armed = true;
            if (each->id.value != cut_.victim) continue;
            each->port.cut_at = cut_.step, each->port.cut_after = cut_.is_after;
        }
    }
    void disarm() {
        for (const auto& each : nodes_) each->port.is_armed = false;
    }
    // The victim's first start after the cut. RETURNS the number of its steps.
    u64 start_again(u32 id) {
        Port& port = node(id).port;
        port.is_armed = is_again_ = true;
        port.steps.clear(), port.cut_at = cut_.again, port.cut_after = false;
        start(id);
        port.is_armed = is_again_ = false;
        return port.steps.size();
    }
    void start(u32 id) {
        Node& own = node(id);
        COORD_ASSERT(!own.is_up());
        note("replica " + std::to_string(id) + " starts");
        own.life += 1;
        own.port.begin_life();
        coord::FileStorageOptions options;
        options.directory = "data", options.files = &own.port;
        options.segment_bytes = tuning_.segment_bytes;
        options.snapshots_kept = tuning_.snapshots_kept;
        checker.restarted(id);
        own.storage.reset(new coord::FileStorage(options));
        own.late.reset(new LateStorage(*own.storage));
        coord::Storage* storage = own.storage.get();
        if (tuning_.is_late) storage = own.late.get();
        own.port.is_starting = true;
        own.replica.reset(new coord::Replica(replica_options(own), *storage, own, this));
        own.port.is_starting = false;
        if (own.port.is_dead) return bury(own);
        judge_start(own);
        poll(own);
    }
    // The power of one fails between two polls, and what is pending is lost.
    void cut_power(u32 id) {
        Node& own = node(id);
        COORD_ASSERT(own.is_up());
        note("replica " + std::to_string(id) + " loses its power");
        end_life(own);
        own.disk.cut_power(std::vector<bool>(own.disk.pending()));
    }
    void wipe(u32 id) {
        Node& own = node(id);
        COORD_ASSERT(!own.is_up());
        own.disk = SimulatedFiles{};
        own.disk.sector = tuning_.sector;
        own.told = Told{};
        checker.wiped(id);
    }
    // A byte of what was durable rots: of the newest segment's first frame.
    void damage(u32 id) {
        Node& own = node(id);
        COORD_ASSERT(!own.is_up());
        std::string newest;
        for (const std::string& path : own.disk.paths()) {
            if (path.find("/log.") != std::string::npos) newest = path;
        }
        Bytes bytes = own.disk.contents(newest);
        bytes[64 + 36] = static_cast<char>(bytes[64 + 36] ^ 1);
        own.disk.set_contents(newest, bytes);
        own.told = Told{};
        own.may_be_damaged = own.was_damaged = true;
        checker.wiped(id);
    }
    // The next flush of one is torn: a first sector of it survives.
    void tear(u32 id) { node(id).port.dies_at_log = true; }

    // ---- Network

    void isolate(u32 id) { node(id).is_isolated = true; }
    void heal() {
        for (const auto& each : nodes_) each->is_isolated = false;
    }
    void send(Node& from, PeerId to, BytesView bytes) {
        if (from.port.is_dead) return;
        if (to.value >= 1 && to.value <= 3) note_told(from, bytes);
        if (from.is_isolated || node(to.value).is_isolated) return;
        packets_.push_back({from.id.value, to.value, Bytes(bytes)});
    }

    // ---- Time

    template <class Condition>
    bool run_until(Condition&& condition, Duration limit) {
        constexpr int deliveries_max = 20000;  // without any time passing
        const Time end = now_ + limit;
        int deliveries = 0;
        while (!is_stopped() && !condition()) {
            if (!packets_.empty() && deliveries < deliveries_max) {
                deliver();
                deliveries += 1;
                continue;
            }
            if (deliveries == deliveries_max) checker.violate("P16", "messages without end");
            if (work_on_disks()) continue;
            if (now_ >= end) return false;
            deliveries = 0;
            Time next = end;
            for (const auto& each : nodes_) {
                if (each->is_up()) next = (std::min)(next, each->replica->next_deadline());
            }
            pass_to((std::min)(end, (std::max)(next, now_ + coord::microseconds(100))));
        }
        return !is_stopped();
    }
    template <class Condition>
    bool demand(Condition&& condition, const std::string& what) {
        if (run_until(condition, coord::seconds(20))) return true;
        if (!is_stopped()) checker.violate("P16", what + " did not come about; " + state());
        return false;
    }

    // ---- What is so

    bool are_equal(u32 ids) {  // bit i: replica i; the others do not matter
        const Node* first = nullptr;
        for (const auto& each : nodes_) {
            if ((ids >> each->id.value & 1) == 0) continue;
            if (!each->is_up()) return false;
            const coord::ReplicaStatus own = each->replica->status();
            if (!own.serving || own.applied != own.last || own.durable != own.last) return false;
            if (first == nullptr) first = each.get();
            const coord::ReplicaStatus one = first->replica->status();
            if (own.last != one.last || own.digest != one.digest || own.epoch != one.epoch ||
                each->replica->log().last().crc != first->replica->log().last().crc) {
                return false;
            }
        }
        return true;
    }
    bool is_quiet() const {
        bool is_idle = packets_.empty();
        for (const auto& each : nodes_) {
            is_idle = is_idle && (!each->is_up() || !each->late->has_work());
        }
        return is_idle;
    }
    bool all_count() {
        for (const auto& each : nodes_) {
            if (!each->is_up() || !each->replica->status().admitted) return false;
        }
        return !table.is_founding();
    }
    bool counts(u32 id) {
        const u64 own = node(id).is_up() ? node(id).storage->id() : 0;
        return own != 0 && table.storage_of(PeerId{id}) == own && !table.is_founding();
    }
    u32 leader() {
        for (const auto& each : nodes_) {
            if (!each->is_up() || each->is_isolated) continue;
            const coord::ReplicaStatus status = each->replica->status();
            if (status.role == Role::leading && status.serving) return each->id.value;
        }
        return 0;
    }
    u32 any_serving() {
        for (const auto& each : nodes_) {
            if (each->is_up() && !each->is_isolated && each->replica->status().serving) {
                return each->id.value;
            }
        }
        return 0;
    }
    bool is_answered(u32 id) {
        const Node& own = node(id);
        return !own.is_up() || (own.waiting == 0 && !own.is_opening);
    }
    bool all_answered() { return is_answered(1) && is_answered(2) && is_answered(3); }
    std::string state() {
        std::string all;
        for (const auto& each : nodes_) {
            all += (all.empty() ? "" : "; ") + std::to_string(each->id.value) + ": ";
            if (!each->is_up()) {
                all += "down";
                continue;
            }
            const coord::ReplicaStatus s = each->replica->status();
            all += std::string(coord::name(s.role)) + (s.serving ? " serving" : "") +
                   (s.admitted ? " admitted" : "") + " epoch " + std::to_string(s.epoch) + "/" +
                   std::to_string(s.accepted_epoch) + " last " + sim::show(s.last) + " durable " +
                   sim::show(s.durable) + " committed " + sim::show(s.committed) + " applied " +
                   sim::show(s.applied) + " waiting " + std::to_string(each->waiting) + " " +
                   s.reason;
        }
        return all;
    }

    // ---- Clients: one at each replica

    void open_session(u32 id) {
        Node& own = node(id);
        own.is_opening = true;
        const u32 life = own.life;
        const Time asked_at = now_;
        own.replica->open_session({coord::seconds(3600)},
                                  [this, &own, life, asked_at](Result<SessionId> opened) {
                                      if (own.life != life || own.port.is_dead) return;
                                      own.is_opening = false;
                                      if (!opened) return checker.violate("P1", "open fails");
                                      own.session = *opened;
                                      checker.opened(*opened, own.id.value, asked_at);
                                  });
        poll(own);
    }
    void ask(u32 id, const sim::Asked& asked) {
        Node& own = node(id);
        COORD_ASSERT(own.session != SessionId{});
        note("client of " + std::to_string(id) + ": " + sim::name(asked.call) + " " + asked.path);
        const Ticket ticket{this, id, own.life, own.session,
                            checker.called(own.session, asked)};
        own.waiting += 1;
        coord::Request request;
        request.path = asked.path, request.data = asked.data;
        fill(request, asked, ticket);
        const SessionId session = own.session;
        if (asked.call == sim::Call::close) own.session = SessionId{};
        own.replica->submit(session, std::move(request));
        poll(own);
    }

    // ---- The end

    void compare_all() {
        for (const auto& each : nodes_) {
            const u32 id = each->id.value;
            const coord::Replica& replica = *each->replica;
            replica.audit();
            checker.whole_state(id, replica.machine());
            checker.caught_up(id, replica.machine().applied());
            checker.state(id, replica.status().applied, replica.status().digest);
        }
    }
    Base leave() {
        for (u32 id = 1; id <= 3; id++) cut_power(id);
        Base base{{}, {}, {}, checker, table, now_};
        for (u32 i = 0; i < 3; i++) {
            base.disks[i] = nodes_[i]->disk, base.told[i] = nodes_[i]->told;
            base.lives[i] = nodes_[i]->life;
        }
        return base;
    }
    void note(const std::string& what) const {
        if (trace) trace(std::to_string(now_.ns / 1000) + " us: " + what);
    }

private:
    struct Packet {
        u32 from = 0;
        u32 to = 0;
        Bytes bytes;
    };
    struct Ticket {
        World* world;
        u32 node;
        u32 life;
        SessionId session;
        std::size_t number;
    };

    coord::ReplicaOptions replica_options(const Node& own) const {
        coord::ReplicaOptions options;
        options.id = own.id;
        options.voters = {PeerId{1}, PeerId{2}, PeerId{3}};
        options.ensemble = 7;
        options.entropy = own.life * 1000 + own.id.value;
        options.timing.heartbeat = coord::milliseconds(100);
        options.timing.silence = coord::milliseconds(300);
        options.snapshot_every_entries = tuning_.snapshot_every;
        options.log_entries_kept = tuning_.entries_kept;
        return options;
    }
    void fail(const Node& own, const char* property, const std::string& what) {
        checker.violate(property, "replica " + std::to_string(own.id.value) + " " + what);
    }

    // What it comes back with is what it had, and not less than it has told.
    void judge_start(Node& own) {
        const coord::ReplicaStatus status = own.replica->status();
        const coord::Log& log = own.replica->log();
        if (status.role == Role::failed) return fail(own, "P19", Bytes("fails: ") + status.reason);
        if (*status.damage != 0 && !own.may_be_damaged) {
            return fail(own, "P19", Bytes("takes a power cut for damage: ") + status.damage + ", " +
                                        own.storage->report().text());
        }
        own.may_be_damaged = false;
        if (own.was_damaged && own.storage->may_found()) {
            fail(own, "P2", "has started over, and passes for one that never had anything");
        }
        checker.state(own.id.value, status.applied, status.digest);
        if (log.epochs().accepted < own.told.accepted || log.epochs().current < own.told.current) {
            fail(own, "P12", "has forgotten an epoch that it told: " +
                                 std::to_string(log.epochs().accepted) + "/" +
                                 std::to_string(log.epochs().current) + " and not " +
                                 std::to_string(own.told.accepted) + "/" +
                                 std::to_string(own.told.current));
        }
        if (log.last().zxid < own.told.zxid) {
            fail(own, "P2", "has forgotten what it acknowledged: it ends at " +
                                sim::show(log.last().zxid) + " and not " +
                                sim::show(own.told.zxid));
        }
    }
    void inspect(Node& own) {
        const coord::ReplicaStatus status = own.replica->status();
        if (status.role == Role::failed) fail(own, "P19", Bytes("fails: ") + status.reason);
        const coord::Log::Epochs& epochs = own.replica->log().durable_epochs();
        checker.epochs(own.id.value, epochs.accepted, epochs.current);
    }
    void poll(Node& own) {
        own.replica->poll(now_, 1);
        if (own.port.is_dead) return bury(own);
        inspect(own);
    }
    // RETURNS whether one had something to do, after which its replica has looked.
    bool work_on_disks() {
        for (const auto& each : nodes_) {
            if (!each->is_up() || !each->late->has_work()) continue;
            each->late->work();
            if (each->port.is_dead) bury(*each);
            if (each->is_up()) poll(*each);
            return true;
        }
        return false;
    }
    void pass_to(Time time) {
        now_ = (std::max)(now_, time);
        for (const auto& each : nodes_) {
            if (is_stopped()) return;
            if (each->is_up() && each->replica->next_deadline() <= now_) poll(*each);
        }
    }
    void deliver() {
        const Packet packet = std::move(packets_.front());
        packets_.pop_front();
        Node& to = node(packet.to);
        if (!to.is_up() || to.is_isolated || node(packet.from).is_isolated) return;
        Message message;
        const Errc error = coord::decode_message(packet.bytes, message);
        COORD_ASSERT(error == Errc::ok);
        if (trace) {
            note(std::to_string(packet.from) + " > " + std::to_string(packet.to) + " " +
                 coord::name(message.type) + " epoch " + std::to_string(message.epoch) + " zxid " +
                 sim::show(message.zxid) + " commit " + sim::show(message.commit));
        }
        const bool is_chunk = message.type == MessageType::chunk;
        u64 step = UINT64_MAX;
        if (is_chunk) step = to.port.begin_step(W(15), "a chunk comes");
        if (to.port.is_dead) return bury(to);
        const bool may_cut = message.type == MessageType::trunc || is_chunk ||
                             message.type == MessageType::diff || message.type == MessageType::snap;
        if (may_cut) to.told.zxid = Zxid{};
        to.replica->receive(PeerId{packet.from}, packet.bytes);
        to.replica->poll(now_, 1);
        if (is_chunk) to.port.end_step(step);
        if (to.port.is_dead) return bury(to);
        inspect(to);
    }
    static void note_told(Node& from, BytesView bytes) {
        Message message;
        const Errc error = coord::decode_message(bytes, message);
        COORD_ASSERT(error == Errc::ok);
        Told& told = from.told;
        if (message.type == MessageType::leader_info) {
            told.accepted = (std::max)(told.accepted, message.epoch);
        } else if (message.type == MessageType::ack_epoch) {
            told.accepted = (std::max)(told.accepted, message.epoch);
            told.current = (std::max)(told.current, message.current_epoch);
            told.zxid = message.zxid;
        } else if (message.type == MessageType::ack) {
            if (message.phase > 0) told.current = (std::max)(told.current, message.epoch);
            told.zxid = message.zxid;
        }
    }

    // Its process has ended.
    void end_life(Node& own) {
        own.port.is_dead = true, own.port.dies_at_log = false;
        own.replica.reset(), own.late.reset(), own.storage.reset();
        if (own.session != SessionId{}) checker.dropped(own.session);
        own.session = SessionId{}, own.waiting = 0, own.is_opening = false;
    }
    // Its power has failed: the victim's, or that of one whose flush is to be torn.
    void bury(Node& own) {
        note("the power of replica " + std::to_string(own.id.value) + " has failed");
        const bool is_torn = own.port.is_torn;
        end_life(own);
        if (is_torn) {
            std::vector<bool> kept(own.disk.pending());
            const std::vector<std::string> paths = own.disk.pending_paths();
            for (std::size_t i = 0; i < kept.size(); i++) {
                kept[i] = paths[i].find("/log.") != std::string::npos;
                if (kept[i]) break;
            }
            return own.disk.cut_power(kept);
        }
        is_interrupted_ = true;
        if (is_again_) {
            return own.disk.cut_power(std::vector<bool>(own.disk.pending(), cut_.again_keeps));
        }
        const std::vector<std::vector<bool>> choices = distinct_choices(own.disk);
        choices_ = choices.size();
        own.disk.cut_power(choices[cut_.choice % choices_]);
        own.port.cut_at = 0;
        if (!cut_.is_all) return;
        for (const auto& each : nodes_) {
            if (!each->is_up()) continue;
            end_life(*each);
            each->disk.cut_power(std::vector<bool>(each->disk.pending(), cut_.others_keep));
        }
        packets_.clear();
    }

    // ---- What replicas tell

    bool is_alive(PeerId id) { return !node(id.value).port.is_dead; }
    void on_established(PeerId id, u32 epoch, Zxid initial) override {
        if (is_alive(id)) checker.established(id.value, node(id.value).life, epoch, initial);
    }
    void on_applied(PeerId id, const coord::Txn& txn, const coord::Outcome* outcome,
                    u64 digest) override {
        if (!is_alive(id)) return;
        if (txn.op == coord::OpCode::admit && txn.zxid > checker.model().frontier()) {
            if (!table.apply(txn)) checker.violate("P3", "an admit that is none");
        }
        checker.applied(id.value, txn, outcome, digest, now_);
    }
    void on_installed(PeerId id, Zxid zxid, u64 digest) override {
        if (is_alive(id)) checker.installed(id.value, zxid, digest);
    }

    static void answer(const Ticket& ticket, const sim::Told& told) {
        Node& own = ticket.world->node(ticket.node);
        if (own.life != ticket.life || own.port.is_dead) return;
        own.waiting -= 1;
        ticket.world->note("client of " + std::to_string(ticket.node) + " is told " +
                           coord::name(told.error));
        const Zxid here = own.replica->machine().applied();
        ticket.world->checker.answered(ticket.session, ticket.number, told, here);
    }
    static void fill(coord::Request& request, const sim::Asked& asked, const Ticket& ticket) {
        using Kind = coord::Request::Kind;
        if (asked.call == sim::Call::create) {
            request.kind = Kind::create;
            request.mode = static_cast<coord::CreateMode>(asked.number);
            request.done = coord::OnCreated([ticket](Result<coord::Created> r) {
                sim::Told told;
                told.error = r.error();
                if (r) told.path = r->path, told.stat = r->stat;
                answer(ticket, told);
            });
        } else if (asked.call == sim::Call::set) {
            request.kind = Kind::set, request.version = asked.number;
            request.done = coord::OnStat([ticket](Result<coord::Stat> r) {
                sim::Told told;
                told.error = r.error();
                if (r) told.stat = *r;
                answer(ticket, told);
            });
        } else {
            request.kind = asked.call == sim::Call::remove ? Kind::remove : Kind::close;
            request.version = asked.number;
            request.done = coord::OnDone([ticket](Result<void> r) {
                answer(ticket, {r.error(), {}, {}, {}, {}, {}});
            });
        }
    }

    const Tuning tuning_;
    const Cut cut_;
    std::unique_ptr<Node> nodes_[3];
    std::deque<Packet> packets_;
    Time now_;
    std::size_t choices_ = 1;
    bool is_interrupted_ = false;
    bool is_again_ = false;
};

inline void Node::send(PeerId to, BytesView bytes) { world.send(*this, to, bytes); }

}  // namespace crash
