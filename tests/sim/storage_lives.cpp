// ctest: --seeds=400
//
// Random lives of a FileStorage, beside a model of what was appended. A seed is one directory on a
// simulated disk and up to 25 lives on it: each opens, appends, takes snapshots, flushes, and ends
// by a power cut, or as a process ends. On the way calls fail, space runs out and comes back; with
// a seed of the kind "rot" snapshots are damaged between two lives. What must hold:
//
//   - open hands over what was durable, and nothing that was not appended: the newest sound
//     snapshot, with what it has, and the records that it needs and that follow (S8);
//   - it says corrupt only where snapshots have rotted, and no sound one could stand for them;
//   - durable() never falls, over all lives;
//   - the newest snapshots_kept sound ones are there, whole, after each step;
//   - when space is there and nothing fails, what is needless goes: no more than snapshots_kept are
//     left beside those that have rotted, no file is open that has no name, and there is room;
//   - with a seed of the kind "short", whose lives flush once or twice and never fail, too.
//
//   sim_storage_lives [--first=N] [--seeds=N] [--minutes=N]    until both are reached
#include "arguments.hpp"
#include "coord.hpp"
#include "simulated_disk.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

using coord::Bytes;
using coord::BytesView;
using coord::Duration;
using coord::Errc;
using coord::FileStorage;
using coord::Sequence;
using coord::Time;
using support::SimulatedFiles;
using u64 = std::uint64_t;

constexpr int lives_max = 25;

struct Tally {
    u64 seeds = 0, lives = 0, cuts = 0, corrupt = 0, snapshots = 0, rotted = 0, rests = 0;
    u64 looks = 0;
};

struct Heard final : coord::RecoverySink {
    std::vector<std::pair<Sequence, Bytes>> records;
    Sequence snapshot = 0;
    u64 size = 0;
    void on_record(Sequence sequence, BytesView record) override {
        records.emplace_back(sequence, Bytes(record));
    }
    void on_snapshot(Sequence sequence, BytesView, u64 bytes) override {
        snapshot = sequence, size = bytes;
    }
};

struct Item {
    bool is_snapshot = false;
    Bytes text;
    Sequence first_needed = 0;
    bool replaces = false;
    bool has_rotted = false;
    bool was_needless = false;  // it may have gone before others rotted
};

class Run {
public:
    Run(u64 seed, Tally& tally) : rng_(seed), tally_(tally) {
        kind_ = static_cast<Kind>(rng_.below(3));
        disk_.sector = 4096;
        options_.directory = "data", options_.files = &disk_;
        options_.snapshots_kept = static_cast<std::uint32_t>(1 + rng_.below(4));
        options_.segment_bytes = 300 + rng_.below(3000);
        if (rng_.chance(500)) options_.purge_interval = coord::seconds(between(1, 100));
    }

    // RETURNS what is wrong, or "".
    Bytes go() {
        for (life_ = 0; life_ < lives_max && !is_over_ && wrong_.empty(); life_++) {
            tally_.lives += 1;
            live();
        }
        if (!wrong_.empty()) wrong_ += ", in life " + std::to_string(life_);
        return wrong_;
    }

private:
    enum class Kind { faults, rot, short_lives };

    std::int64_t between(std::int64_t low, std::int64_t high) {
        return low + static_cast<std::int64_t>(rng_.below(static_cast<u64>(high - low + 1)));
    }
    // RETURNS holds.
    bool must(bool holds, const Bytes& what) {
        if (!holds && wrong_.empty()) wrong_ = what;
        return holds;
    }
    static std::string path_of(Sequence snapshot) {
        char name[40];
        std::snprintf(name, sizeof name, "data/snapshot.%016llx",
                      static_cast<unsigned long long>(snapshot));
        return name;
    }
    std::vector<std::string> snapshot_files() const {
        std::vector<std::string> out;
        for (const std::string& path : disk_.paths()) {
            const bool is_one = path.compare(0, 14, "data/snapshot.") == 0;
            if (is_one && path != "data/snapshot.tmp") out.push_back(path);
        }
        return out;
    }

    void live() {
        const bool is_calm = kind_ == Kind::short_lives;
        const bool is_cut = !is_calm && rng_.chance(400);
        if (is_cut) disk_.cut_before(disk_.calls() + 1 + rng_.below(200));
        if (!is_calm && rng_.chance(150)) {
            const auto call = static_cast<SimulatedFiles::Call>(rng_.below(11));
            const u64 turn = 1 + rng_.below(30);
            disk_.fail(call, turn, rng_.chance(600) ? Errc::storage_failed : Errc::storage_full);
        }
        disk_.capacity = !is_calm && rng_.chance(150) ? rng_.below(2000000) : UINT64_MAX;
        {
            FileStorage storage(options_);
            Heard heard;
            const Errc error = storage.open(heard, {7, 12345});
            must(error == Errc::ok || !is_calm, "open failed: " + storage.reason());
            if (error == Errc::corrupt) is_over_ = true, look_at_damage(storage);
            if (error == Errc::ok) look_at_recovery(storage, heard);
            const bool goes_on = error == Errc::ok && wrong_.empty();
            if (goes_on) is_calm ? live_shortly(storage) : work(storage);
        }
        end(is_cut);
        if (kind_ == Kind::rot && rng_.chance(300)) rot();
    }

    // ---- What is appended

    Errc append(FileStorage& storage, std::size_t bytes) {
        Item item;
        item.text = std::to_string(items_.size() + 1) + Bytes(bytes, 'r');
        const Errc error = storage.append(item.text);
        if (error == Errc::ok) items_.push_back(item);
        return error;
    }

    Errc take_snapshot(FileStorage& storage, std::size_t bytes, bool may_replace) {
        Item item;
        item.is_snapshot = true;
        item.text = "s" + std::to_string(items_.size() + 1) + Bytes(bytes, 's');
        Errc error = storage.begin_snapshot();
        if (error == Errc::ok) error = storage.write_snapshot(item.text);
        if (error != Errc::ok || rng_.chance(100)) return error;  // begun, and left
        const Sequence next = storage.appended() + 1;
        item.replaces = may_replace && rng_.chance(100);
        item.first_needed = item.replaces ? next : next - (std::min)(Sequence{rng_.below(4)},
                                                                     next - 1);
        // A replica's never falls.
        for (Sequence s = 1; s < next; s++) {
            const Item& before = items_[s - 1];
            const Sequence least = before.replaces ? s : before.first_needed;
            item.first_needed = (std::max)(item.first_needed, (std::min)(least, next));
        }
        error = storage.end_snapshot(item.first_needed, item.replaces);
        if (error == Errc::ok) items_.push_back(item), tally_.snapshots += 1;
        return error;
    }

    void work(FileStorage& storage) {
        Time now = Time{} + coord::seconds(between(0, 1000));
        Errc error = Errc::ok;
        u64 steps = rng_.below(rng_.chance(300) ? 5 : 60);
        for (; steps > 0 && error != Errc::storage_failed && wrong_.empty(); steps--) {
            storage.set_time(now = now + coord::milliseconds(between(0, 3000)));
            const u64 dice = rng_.below(100);
            if (dice < 45) {
                error = append(storage, rng_.below(rng_.chance(100) ? 2000 : 100));
            } else if (dice < 85) {
                error = storage.flush();
            } else if (dice < 97) {
                error = take_snapshot(storage, rng_.below(rng_.chance(300) ? 400000 : 300), true);
            } else if (dice < 98) {
                storage.check_snapshots();
            } else {
                disk_.capacity = rng_.chance(500) ? UINT64_MAX : rng_.below(2000000);
            }
            look(storage);
        }
        const bool is_well = storage.health() == Errc::ok && !disk_.is_cut();
        if (is_well && wrong_.empty() && rng_.chance(50)) come_to_rest(storage, now);
    }

    // So few flushes that an older snapshot of this size is not read by pieces.
    void live_shortly(FileStorage& storage) {
        storage.set_time(Time{} + coord::seconds(between(0, 1000)));
        must(append(storage, rng_.below(400)) == Errc::ok, "append failed");
        if (must(storage.flush() == Errc::ok, "flush failed")) look(storage);
        must(take_snapshot(storage, 300000, false) == Errc::ok, "no snapshot");
        if (must(storage.flush() == Errc::ok, "flush failed")) look(storage);
        const std::size_t count = snapshot_files().size();
        must(count <= options_.snapshots_kept + 2,
             "short lives leave " + std::to_string(count) + " snapshots");
    }

    // ---- What must hold

    void look_at_recovery(FileStorage& storage, const Heard& heard) {
        const Sequence last = storage.appended();
        if (!must(last >= durable_ && last <= items_.size(),
                  "S8: " + std::to_string(last) + " of " + std::to_string(durable_) +
                      " that were durable")) {
            return;
        }
        items_.resize(last), durable_ = last;
        Sequence newest = 0;
        for (Sequence s = 1; s <= last; s++) {
            if (items_[s - 1].is_snapshot && !items_[s - 1].has_rotted) newest = s;
        }
        const bool is_newest = heard.snapshot == newest;
        if (!must(is_newest || kind_ == Kind::rot, "S8: not the newest snapshot")) return;
        if (heard.snapshot != 0) {
            const Item& item = items_[heard.snapshot - 1];
            Bytes bytes;
            const Errc error = storage.read_snapshot(heard.snapshot, 0, 1 << 20, bytes);
            must(item.is_snapshot && !item.has_rotted, "S8: a snapshot that is none");
            must(error != Errc::ok || bytes == item.text, "S8: another snapshot's bytes");
        }
        std::size_t at = 0;
        Sequence s = heard.snapshot == 0 ? 1 : items_[heard.snapshot - 1].first_needed;
        for (; s <= last; s++) {
            if (items_[s - 1].is_snapshot) continue;
            const bool is_it = at < heard.records.size() && heard.records[at].first == s &&
                               heard.records[at].second == items_[s - 1].text;
            if (!must(is_it, "S8: record " + std::to_string(s) + " is missing, or another")) return;
            at += 1;
        }
        must(at == heard.records.size(), "S8: records that were not appended");
    }

    // Where there is a sound one that nothing replaces there is no reason to give up.
    void look_at_damage(const FileStorage& storage) {
        tally_.corrupt += 1;
        must(kind_ == Kind::rot, "corrupt: " + storage.report().text());
        for (Sequence s = durable_; s > 0; s--) {
            const Item& item = items_[s - 1];
            if (!item.is_snapshot) continue;
            const bool is_sound = !item.has_rotted && !item.was_needless;
            must(!is_sound || !disk_.exists(path_of(s)),
                 "corrupt in spite of snapshot " + std::to_string(s));
            if (item.replaces) return;
        }
    }

    void look(const FileStorage& storage) {
        tally_.looks += 1;
        must(storage.appended() == items_.size(), "appended() is wrong");
        must(storage.durable() >= durable_, "durable() has fallen");
        durable_ = storage.durable();
        if (disk_.is_cut() || storage.health() != Errc::ok) return;
        std::uint32_t count = 0;
        for (Sequence s = durable_; s > 0 && count < options_.snapshots_kept; s--) {
            const Item& item = items_[s - 1];
            if (!item.is_snapshot) continue;
            const std::string path = path_of(s);
            if (!item.has_rotted && !item.was_needless) {
                count += 1;
                const bool is_whole = disk_.exists(path) && disk_.contents(path).substr(64) ==
                                                                item.text;
                if (!must(is_whole, path + " has gone: " + storage.report().text())) return;
            }
            if (item.replaces) return;
        }
    }

    void come_to_rest(FileStorage& storage, Time now) {
        disk_.capacity = UINT64_MAX, disk_.stop_failing(), disk_.restore_power();
        for (int i = 0; i < 400; i++) {
            storage.set_time(now = now + coord::seconds(1));
            if (!must(storage.flush() == Errc::ok, "a flush at rest failed")) return;
        }
        durable_ = storage.durable(), tally_.rests += 1;
        std::size_t rotten = storage.report().snapshots_bad;
        for (const Item& item : items_) rotten += item.has_rotted ? 1u : 0u;
        const std::size_t count = snapshot_files().size();
        must(count <= options_.snapshots_kept + rotten,
             std::to_string(count) + " snapshots at rest: " + storage.report().text());
        must(disk_.open_without_name() == 0, "a file that is open has no name");
        must(storage.has_room(), "there is space, and no room");
    }

    // ---- What happens to it

    void end(bool is_cut) {
        if (!is_cut && !rng_.chance(300)) {
            disk_.end_process(), disk_.stop_failing(), disk_.restore_power();
            return;
        }
        std::vector<bool> kept(disk_.pending());
        const auto permille = static_cast<std::uint32_t>(rng_.below(1001));
        for (std::size_t i = 0; i < kept.size(); i++) kept[i] = rng_.chance(permille);
        disk_.cut_power(kept);
        tally_.cuts += 1;
    }

    // What was more than had to be kept may be gone, and what rots now does not bring it back.
    void rot() {
        std::uint32_t count = 0;
        bool is_past = false;
        for (Sequence s = durable_; s > 0; s--) {
            Item& item = items_[s - 1];
            if (!item.is_snapshot) continue;
            if (count == options_.snapshots_kept || is_past) item.was_needless = true;
            if (!item.was_needless && !item.has_rotted) count += 1;
            if (item.replaces && !item.was_needless) is_past = true;
        }
        for (const std::string& path : snapshot_files()) {
            const Sequence s = std::strtoull(path.c_str() + 14, nullptr, 16);
            const bool is_known = s <= durable_ && items_[s - 1].is_snapshot;
            if (!is_known || items_[s - 1].has_rotted) continue;  // twice might make it whole
            if (disk_.contents(path).empty() || !rng_.chance(300)) continue;
            Bytes bytes = disk_.contents(path);
            const std::size_t at = rng_.below(bytes.size());
            switch (rng_.below(4)) {
                case 0: bytes[at] = static_cast<char>(bytes[at] ^ 1); break;
                case 1: bytes.resize(at); break;
                case 2: bytes += Bytes(1 + rng_.below(200000), 'z'); break;
                default: bytes.clear(); break;
            }
            disk_.set_contents(path, bytes);
            items_[s - 1].has_rotted = true, tally_.rotted += 1;
        }
    }

    coord::Rng rng_;
    Tally& tally_;
    Kind kind_ = Kind::faults;
    SimulatedFiles disk_;
    coord::FileStorageOptions options_;
    std::vector<Item> items_;  // of sequence 1 on
    Sequence durable_ = 0;
    int life_ = 0;
    bool is_over_ = false;     // nothing can be expected of it any more
    Bytes wrong_;
};

}  // namespace

int main(int argc, char** argv) {
    u64 first = 1, seeds = 400, minutes = 0;
    for (int i = 1; i < argc; i++) {
        if (arguments::take(argv[i], "--first=", first)) continue;
        if (arguments::take(argv[i], "--seeds=", seeds)) continue;
        if (arguments::take(argv[i], "--minutes=", minutes)) continue;
        std::fprintf(stderr, "sim_storage_lives [--first=N] [--seeds=N] [--minutes=N]\n");
        return 2;
    }
    using Clock = std::chrono::steady_clock;
    const Clock::time_point end = Clock::now() + std::chrono::minutes(minutes);
    Tally tally;
    for (u64 seed = first; seed < first + seeds || Clock::now() < end; seed++) {
        tally.seeds += 1;
        const Bytes wrong = Run(seed, tally).go();
        if (wrong.empty()) continue;
        std::printf("seed %llu: %s\nreplay: sim_storage_lives --first=%llu --seeds=1\n",
                    static_cast<unsigned long long>(seed), wrong.c_str(),
                    static_cast<unsigned long long>(seed));
        return 1;
    }
    const auto show = [](const char* what, u64 number) {
        std::printf("%s %llu\n", what, static_cast<unsigned long long>(number));
    };
    show("seeds", tally.seeds), show("lives", tally.lives), show("power cuts", tally.cuts);
    show("snapshots", tally.snapshots), show("of these rotted", tally.rotted);
    show("corrupt", tally.corrupt), show("at rest", tally.rests), show("looks", tally.looks);
    const bool is_much = tally.corrupt > 0 && tally.rests > 0 && tally.rotted > 0;
    return is_much || seeds < 100 ? 0 : 1;
}
