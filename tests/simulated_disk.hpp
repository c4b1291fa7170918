// A disk in memory that keeps its promises to the letter and not a bit more: what was written and
// not synced may be there after a power cut, or be lost, sector by sector in any order; a name that
// was given or taken is so for certain only once its directory was synced. It can be copied, so
// that one moment can be continued in several ways.
#ifndef COORD_TESTS_SIMULATED_DISK_HPP
#define COORD_TESTS_SIMULATED_DISK_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "coord.hpp"

namespace support {

class SimulatedFiles final : public coord::Files {
public:
    using Bytes = coord::Bytes;
    using BytesView = coord::BytesView;
    using Errc = coord::Errc;
    using FileId = coord::FileId;
    enum class Call { open, size, read, write, allocate, sync, rename, remove, list, lock, names };

    std::size_t sector = 512;
    std::uint64_t capacity = UINT64_MAX;   // bytes in files with a name
    bool sync_lies = false;                // sync returns ok and does nothing

    // The power fails before call number k: that call and all later ones do nothing. Calls count
    // from 1; close and error_text do not count.
    void cut_before(std::uint64_t k) { cut_at_ = k; }
    bool is_cut() const { return is_cut_; }
    // Somebody else changes that file before call number k.
    void change_before(std::uint64_t k, const std::string& path, const Bytes& bytes) {
        change_at_ = k, change_path_ = path, change_bytes_ = bytes;
    }
    void restore_power() { cut_at_ = 0, is_cut_ = false; }  // for a crash of the process alone
    std::uint64_t calls() const { return calls_; }
    // The k-th call of that kind from now on fails.
    void fail(Call call, std::uint64_t k, Errc error = Errc::storage_failed) {
        faults_[call] = {k, error};
    }
    void stop_failing() { faults_.clear(); }
    // 0 where the call that is to fail has come.
    std::uint64_t left_to_fail(Call call) const {
        const auto fault = faults_.find(call);
        return fault == faults_.end() ? 0 : fault->second.left;
    }

    // What a power cut may lose or keep, one by one: sectors of writes, then names.
    std::size_t pending() const {
        std::size_t count = names_pending_.size();
        for (const auto& inode : inodes_) count += inode.second.pending.size();
        return count;
    }
    // What file each of them is of, in that order: "" where it has lost its name.
    std::vector<std::string> pending_paths() const {
        std::vector<std::string> out;
        for (const auto& [number, inode] : inodes_) {
            out.insert(out.end(), inode.pending.size(), path_of(number));
        }
        for (const Naming& naming : names_pending_) {
            out.push_back(naming.to.empty() ? naming.from : naming.to);
        }
        return out;
    }
    // kept: for each pending thing, whether it survives.
    void cut_power(const std::vector<bool>& kept) {
        std::size_t at = 0;
        for (auto& [number, inode] : inodes_) {
            inode.now = inode.durable;
            for (const Write& write : inode.pending) {
                if (kept[at++]) apply(write, inode.now);
            }
            inode.durable = inode.now, inode.pending.clear();
        }
        for (const Naming& naming : names_pending_) {
            if (kept[at++]) apply(naming, names_durable_);
        }
        names_ = names_durable_, names_pending_.clear();
        end_process();
        cut_at_ = 0, is_cut_ = false, faults_.clear();
        drop_unnamed();
    }
    // The process ends, the machine goes on: files and names are as they were written.
    void end_process() { open_.clear(), locks_.clear(); }

    std::vector<std::string> paths() const {
        std::vector<std::string> out;
        for (const auto& name : names_) out.push_back(name.first);
        return out;
    }
    bool exists(const std::string& path) const { return names_.count(path) != 0; }
    // Files that are open and have no name: nobody can free what they take.
    std::size_t open_without_name() const {
        std::size_t count = 0;
        for (const auto& [file, inode] : open_) count += path_of(inode).empty() ? 1u : 0u;
        return count;
    }
    // The contents, to be looked at or damaged: what is done to them is durable.
    const Bytes& contents(const std::string& path) const {
        return inodes_.at(names_.at(path)).now;
    }
    void set_contents(const std::string& path, const Bytes& bytes) {
        if (!exists(path)) names_[path] = names_durable_[path] = ++inode_newest_;
        Inode& inode = inodes_[names_.at(path)];
        inode.now = inode.durable = bytes, inode.pending.clear();
    }
    void erase(const std::string& path) { names_.erase(path), names_durable_.erase(path); }

    coord::Result<FileId> open(BytesView view, Mode mode) override {
        const std::string path(view);
        if (const Errc error = begin(Call::open); error != Errc::ok) return error;
        if (mode == Mode::create) {
            name({path, "", ++inode_newest_});
            inodes_[inode_newest_];
        } else if (!exists(path)) {
            return Errc::no_node;
        }
        return put(names_[path]);
    }
    void close(FileId file) override {
        locks_.erase(file.value), open_.erase(file.value);
        if (!is_cut_) drop_unnamed();
    }
    coord::Result<std::uint64_t> size(FileId file) override {
        if (const Errc error = begin(Call::size); error != Errc::ok) return error;
        return std::uint64_t{inode(file).now.size()};
    }
    Errc read(FileId file, std::uint64_t offset, std::size_t size, Bytes& out) override {
        if (const Errc error = begin(Call::read); error != Errc::ok) return error;
        const Bytes& bytes = inode(file).now;
        if (offset < bytes.size()) out += bytes.substr(static_cast<std::size_t>(offset), size);
        return Errc::ok;
    }
    Errc write(FileId file, std::uint64_t offset, BytesView bytes) override {
        if (const Errc error = begin(Call::write); error != Errc::ok) return error;
        if (used_with(file, offset + bytes.size()) > capacity) return Errc::storage_full;
        while (!bytes.empty()) {
            const auto room = sector - static_cast<std::size_t>(offset % sector);
            const Write piece{offset, Bytes(bytes.substr(0, room)), 0};
            apply(piece, inode(file).now);
            inode(file).pending.push_back(piece);
            offset += piece.bytes.size(), bytes.remove_prefix(piece.bytes.size());
        }
        return Errc::ok;
    }
    Errc allocate(FileId file, std::uint64_t size) override {
        if (const Errc error = begin(Call::allocate); error != Errc::ok) return error;
        if (used_with(file, size) > capacity) return Errc::storage_full;
        const Write growth{0, "", static_cast<std::size_t>(size)};
        apply(growth, inode(file).now);
        inode(file).pending.push_back(growth);
        return Errc::ok;
    }
    Errc sync(FileId file) override {
        if (const Errc error = begin(Call::sync); error != Errc::ok) return error;
        if (!sync_lies) inode(file).durable = inode(file).now, inode(file).pending.clear();
        return Errc::ok;
    }
    Errc rename(BytesView from, BytesView to) override {
        if (const Errc error = begin(Call::rename); error != Errc::ok) return error;
        if (!exists(std::string(from))) return Errc::no_node;
        name({std::string(to), std::string(from), names_.at(std::string(from))});
        return Errc::ok;
    }
    Errc remove(BytesView path) override {
        if (const Errc error = begin(Call::remove); error != Errc::ok) return error;
        if (exists(std::string(path))) name({"", std::string(path), 0});
        return Errc::ok;
    }
    Errc make_directory(BytesView) override { return begin(Call::names); }
    Errc sync_directory(BytesView view) override {
        if (const Errc error = begin(Call::names); error != Errc::ok) return error;
        if (sync_lies) return Errc::ok;
        std::vector<Naming> others;
        for (const Naming& naming : names_pending_) {
            if (directory_of(naming.to.empty() ? naming.from : naming.to) == view) {
                apply(naming, names_durable_);
            } else {
                others.push_back(naming);
            }
        }
        names_pending_ = others;
        return Errc::ok;
    }
    Errc list(BytesView directory, std::vector<Bytes>& names) override {
        if (const Errc error = begin(Call::list); error != Errc::ok) return error;
        for (const auto& name : names_) {
            if (directory_of(name.first) != directory) continue;
            names.push_back(name.first.substr(directory.size() + 1));
        }
        return Errc::ok;
    }
    coord::Result<FileId> lock(BytesView view) override {
        const std::string path(view);
        if (const Errc error = begin(Call::lock); error != Errc::ok) return error;
        for (const auto& held : locks_) {
            if (held.second == path) return Errc::storage_locked;
        }
        if (!exists(path)) {
            name({path, "", ++inode_newest_});
            inodes_[inode_newest_];
        }
        const FileId file = put(names_[path]);
        locks_[file.value] = path;
        return file;
    }
    const char* error_text() const override { return is_cut_ ? "no power" : "a simulated fault"; }

private:
    struct Write {
        std::uint64_t offset = 0;
        Bytes bytes;
        std::size_t grow_to = 0;       // or this: zeros up to here
    };
    struct Inode {
        Bytes now, durable;
        std::vector<Write> pending;
    };
    struct Naming {                    // inode is called `to` and no longer `from`; "" = nothing
        std::string to, from;
        std::uint32_t inode = 0;
    };
    struct Fault {
        std::uint64_t left = 0;
        Errc error = Errc::ok;
    };
    using Names = std::map<std::string, std::uint32_t>;

    Errc begin(Call call) {
        calls_ += 1;
        if (cut_at_ != 0 && calls_ >= cut_at_) is_cut_ = true;
        if (change_at_ == calls_) set_contents(change_path_, change_bytes_);
        if (is_cut_) return Errc::storage_failed;
        const auto fault = faults_.find(call);
        if (fault == faults_.end() || fault->second.left == 0) return Errc::ok;
        fault->second.left -= 1;
        return fault->second.left == 0 ? fault->second.error : Errc::ok;
    }
    static void apply(const Write& write, Bytes& bytes) {
        const std::size_t offset = static_cast<std::size_t>(write.offset);
        const std::size_t end = (std::max)(write.grow_to, offset + write.bytes.size());
        if (bytes.size() < end) bytes.resize(end, '\0');
        bytes.replace(offset, write.bytes.size(), write.bytes);
    }
    static void apply(const Naming& naming, Names& names) {
        if (!naming.from.empty()) names.erase(naming.from);
        if (!naming.to.empty()) names[naming.to] = naming.inode;
    }
    void name(const Naming& naming) {
        apply(naming, names_);
        names_pending_.push_back(naming);
    }
    static std::string directory_of(const std::string& path) {
        return path.substr(0, path.rfind('/'));
    }
    std::string path_of(std::uint32_t number) const {
        for (const auto& named : names_) {
            if (named.second == number) return named.first;
        }
        return "";
    }
    FileId put(std::uint32_t number) {
        open_[++file_newest_] = number;
        return FileId(file_newest_);
    }
    Inode& inode(FileId file) { return inodes_.at(open_.at(file.value)); }
    std::uint64_t used_with(FileId file, std::uint64_t size) {
        std::uint64_t used = (std::max)(size, std::uint64_t{inode(file).now.size()});
        const std::uint32_t own = open_.at(file.value);
        for (const auto& named : names_) {
            if (named.second != own) used += inodes_.at(named.second).now.size();
        }
        return used;
    }
    // Contents that neither a name nor an open file leads to are gone.
    void drop_unnamed() {
        std::set<std::uint32_t> used;
        for (const Names* names : {&names_, &names_durable_}) {
            for (const auto& named : *names) used.insert(named.second);
        }
        for (const Naming& naming : names_pending_) used.insert(naming.inode);
        for (const auto& opened : open_) used.insert(opened.second);
        for (auto at = inodes_.begin(); at != inodes_.end();) {
            at = used.count(at->first) == 0 ? inodes_.erase(at) : std::next(at);
        }
    }

    std::map<std::uint32_t, Inode> inodes_;
    Names names_, names_durable_;
    std::vector<Naming> names_pending_;
    std::map<std::uint32_t, std::uint32_t> open_;   // file to inode
    std::map<std::uint32_t, std::string> locks_;
    std::map<Call, Fault> faults_;
    std::uint32_t inode_newest_ = 0;
    std::uint32_t file_newest_ = 0;
    std::uint64_t calls_ = 0;
    std::uint64_t cut_at_ = 0;
    std::uint64_t change_at_ = 0;
    std::string change_path_;
    Bytes change_bytes_;
    bool is_cut_ = false;
};

}  // namespace support

#endif
