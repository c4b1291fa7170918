// Ensembles on files: each replica has a disk that outlives its processes and loses, tears and rots
// as the test says. The disks can be copied, so that one moment can be continued in several ways.
#pragma once

#include "coord.hpp"

#ifndef COORD_NO_FILES

#include "../simulated_disk.hpp"
#include "harness.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace paper {

using support::SimulatedFiles;

// Ways in which a power cut can choose among so many pending things: none, all, each first part,
// and some by chance; of the first parts no more than `most`.
inline std::vector<std::vector<bool>> survivors_of(std::size_t count, std::size_t most,
                                                   coord::Rng& rng) {
    std::vector<std::vector<bool>> out;
    const std::size_t step = count / most + 1;
    for (std::size_t i = 0; i <= count; i += i < count && i + step > count ? count - i : step) {
        std::vector<bool> kept(count);
        std::fill(kept.begin(), kept.begin() + static_cast<std::ptrdiff_t>(i), true);
        out.push_back(kept);
    }
    for (std::size_t i = 0; i < 3 && count > 1; i++) {
        std::vector<bool> kept(count);
        for (std::size_t j = 0; j < count; j++) kept[j] = rng.chance(500);
        out.push_back(kept);
    }
    return out;
}

inline std::vector<bool> some_of(std::size_t count, coord::Rng& rng) {
    std::vector<bool> kept(count);
    for (std::size_t i = 0; i < count; i++) kept[i] = rng.chance(500);
    return kept;
}

inline coord::FileStorageOptions options_on(SimulatedFiles& disk, std::uint64_t segment_bytes) {
    coord::FileStorageOptions options;
    options.directory = "data";
    options.segment_bytes = segment_bytes;
    options.files = &disk;
    return options;
}

class Disks {
public:
    std::uint64_t segment_bytes = 2048;
    std::uint32_t snapshot_every = 8;

    explicit Disks(std::size_t count = 3) : disks_(count) {}

    SimulatedFiles& operator[](PeerId id) { return disks_[id.value - 1]; }
    // Of worlds on these disks, which must not outlive them.
    WorldOptions options() {
        WorldOptions options;
        options.voters = static_cast<std::uint32_t>(disks_.size());
        options.tune = [this](coord::ReplicaOptions& replica) {
            replica.entropy = ++starts_ * 1000 + replica.id.value;
            replica.snapshot_every_entries = snapshot_every;
            replica.log_entries_kept = 4;
        };
        options.storage = [this](PeerId id) -> std::unique_ptr<coord::Storage> {
            return std::make_unique<coord::FileStorage>(options_on((*this)[id], segment_bytes));
        };
        return options;
    }
    std::uint64_t used(PeerId id) {
        std::uint64_t bytes = 0;
        for (const std::string& path : (*this)[id].paths()) {
            bytes += (*this)[id].contents(path).size();
        }
        return bytes;
    }
    std::vector<std::string> paths(PeerId id, const std::string& kind) {
        std::vector<std::string> found;
        for (const std::string& path : (*this)[id].paths()) {
            if (path.find("data/" + kind) == 0) found.push_back(path);
        }
        return found;
    }

private:
    std::vector<SimulatedFiles> disks_;
    std::uint64_t starts_ = 0;
};

// The process ends and the power is cut; what was not synced is lost, but for some of it.
inline void cut_power(World& w, Disks& disks, PeerId id, const std::vector<bool>& kept) {
    if (w.is_up(id)) w.crash(id);
    disks[id].cut_power(kept);
}
inline void cut_power(World& w, Disks& disks, PeerId id) {
    if (w.is_up(id)) w.crash(id);
    disks[id].cut_power(std::vector<bool>(disks[id].pending(), false));
}

}  // namespace paper

#endif  // COORD_NO_FILES
