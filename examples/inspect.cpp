// Looks into the directory of a FileStorage and changes nothing there: prints what opening it
// finds, its records and snapshots, and the state that they give.
//
//     g++ -std=c++17 -O1 -I. examples/inspect.cpp -o inspect && ./inspect DIRECTORY
//
//     --ensemble N   for which ensemble it is; else its files say so
//     --entries      each entry of the log, instead of runs of them
//     --tree         the path of each node
//
// Exits with 0: sound; 1: sound, with a torn tail that the next opening cuts off; 2: damaged, or
// not to be read; 3: called wrongly. Without arguments it tries that out on a storage of its own.
#define COORD_IMPLEMENTATION
#include "coord.hpp"

#include "support/scratch_directory.hpp"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>

using coord::Bytes;
using coord::BytesView;
using coord::Errc;
using coord::FileId;
using coord::Result;
using coord::Sequence;
using coord::Zxid;

// Limits decide what a transaction does. If your replicas have others than these, say so here.
static const coord::Limits limits;

struct Options {
    Bytes directory;
    std::uint64_t ensemble = 0;
    bool has_ensemble = false;
    bool entries = false;
    bool tree = false;
};

// What an inspection comes to.
struct Findings {
    coord::RecoveryReport report;
    Bytes damage;              // "" = none
    std::uint64_t digest = 0;  // of the state, if there is no damage
    int exit_code() const { return !damage.empty() ? 2 : report.torn_bytes > 0 ? 1 : 0; }
};

// ------------------------------------------------------------------------------------------------
// The files of this system, but nothing changes: what is written goes nowhere. So a FileStorage
// opens here as it would on the files themselves, and believes that it has cut and removed things.

class ReadOnlyFiles final : public coord::Files {
public:
    Result<FileId> open(BytesView path, Mode mode) override {
        if (mode == Mode::create) return nowhere;
        return files_->open(path, Mode::read);
    }
    void close(FileId file) override {
        if (file != nowhere) files_->close(file);
    }
    Result<std::uint64_t> size(FileId file) override { return files_->size(file); }
    Errc read(FileId file, std::uint64_t offset, std::size_t size, Bytes& out) override {
        return files_->read(file, offset, size, out);
    }
    Errc write(FileId, std::uint64_t, BytesView) override { return Errc::ok; }
    Errc allocate(FileId, std::uint64_t) override { return Errc::ok; }
    Errc sync(FileId) override { return Errc::ok; }
    Errc rename(BytesView, BytesView) override { return Errc::ok; }
    Errc remove(BytesView) override { return Errc::ok; }
    Errc make_directory(BytesView path) override {  // it has to be there
        std::vector<Bytes> names;
        return files_->list(path, names);
    }
    Errc sync_directory(BytesView) override { return Errc::ok; }
    Errc list(BytesView directory, std::vector<Bytes>& names) override {
        return files_->list(directory, names);
    }
    // Nobody shall write while we read. But a lock file is not made where there is none, and where
    // there cannot be a lock, on a disk that is read-only, nobody writes.
    Result<FileId> lock(BytesView path) override {
        const Result<FileId> file = open(path, Mode::read);
        if (!file) return nowhere;
        close(*file);
        const Result<FileId> locked = files_->lock(path);
        if (!locked && locked.error() != Errc::storage_locked) return nowhere;
        return locked;
    }
    const char* error_text() const override { return files_->error_text(); }

private:
    static constexpr FileId nowhere{UINT32_MAX};
    decltype(coord::system_files()) files_ = coord::system_files();
};

// Appends the first bytes of a file to out, and gives its size. RETURNS false if it cannot.
static bool read_head(coord::Files& files, const Bytes& path, std::size_t bytes_max, Bytes& out,
                      std::uint64_t& size) {
    const Result<FileId> file = files.open(path, coord::Files::Mode::read);
    if (!file) return false;
    const Result<std::uint64_t> found = files.size(*file);
    size = found.value_or(0);
    const auto bytes = static_cast<std::size_t>((std::min)(size, std::uint64_t{bytes_max}));
    const bool is_read = found && files.read(*file, 0, bytes, out) == Errc::ok;
    files.close(*file);
    return is_read;
}

static bool is_named(const Bytes& name, BytesView kind) {
    return BytesView(name).substr(0, kind.size()) == kind;
}

// Segments, snapshots and the mark begin with a header that names the ensemble, and has a checksum.
static constexpr std::size_t header_bytes = 64;

static bool ensemble_of(BytesView header, std::uint64_t& ensemble) {
    if (header.size() < header_bytes) return false;
    coord::Reader checksum{header.substr(header_bytes - 4, 4)};
    if (coord::crc32c(header.substr(0, header_bytes - 4)) != checksum.u32()) return false;
    coord::Reader in{header};
    in.u64(), in.u32();  // the magic, the version
    ensemble = in.u64();
    return true;
}

// Lists the files. RETURNS whether they are a storage's. The first header that is sound says whose.
static bool list_files(coord::Files& files, Options& options) {
    std::vector<Bytes> names;
    const Errc error = files.list(options.directory, names);
    if (error != Errc::ok) std::printf("%s\n", files.error_text());
    std::sort(names.begin(), names.end());
    bool is_storage = false;
    for (const Bytes& name : names) {
        const bool counts = is_named(name, "log.") || is_named(name, "snapshot.") || name == "mark";
        is_storage = is_storage || counts;
        Bytes head;
        std::uint64_t size = 0;
        const Bytes path = options.directory + "/" + name;
        if (!read_head(files, path, header_bytes, head, size)) continue;
        std::printf("  %-28s %9" PRIu64 " bytes\n", name.c_str(), size);
        if (counts && !options.has_ensemble) {
            options.has_ensemble = ensemble_of(head, options.ensemble);
        }
    }
    return is_storage;
}

// ------------------------------------------------------------------------------------------------
// The records, one after the other, as the storage hands them over.

static void print_zxid(const char* before, Zxid zxid) {
    std::printf("%s0x%" PRIx64, before, zxid.value);
}

static void print_operation(const coord::Txn& txn) {
    coord::Reader body{txn.body};
    switch (txn.op) {
        case coord::OpCode::open_session:
            body.u64();
            std::printf("open_session, timeout %" PRIu32 " ms", body.u32());
            return;
        case coord::OpCode::close_session:
            std::printf(body.u8() == 1 ? "close_session, expired" : "close_session");
            return;
        case coord::OpCode::create: std::printf("create "); break;
        case coord::OpCode::remove: std::printf("remove "); break;
        case coord::OpCode::set: std::printf("set "); break;
        case coord::OpCode::set_acl: std::printf("set_acl "); break;
        case coord::OpCode::auth: std::printf("auth"); return;
        case coord::OpCode::admit: std::printf("admit voters"); return;
        case coord::OpCode::multi: std::printf("multi of %" PRIu32 " parts", body.u32()); return;
        default: std::printf("operation %d", static_cast<int>(txn.op)); return;
    }
    const Bytes path{body.bytes(limits.path_bytes_max)};
    std::printf("%s", coord::is_valid_path(path) ? path.c_str() : "(not a path)");
}

class Records final : public coord::RecoverySink {
public:
    explicit Records(bool each_entry) : each_entry_(each_entry) {}
    void on_record(Sequence sequence, BytesView record) override {
        coord::Txn txn;
        if (coord::decode_entry(record, txn) == Errc::ok) return on_entry(sequence, txn);
        end_of_run();
        coord::Reader in{record};
        in.u32(), in.u32();  // its length and checksum, which the log will look at
        const int kind = in.u8();
        std::printf("  %10" PRIu64 "  ", sequence);
        switch (static_cast<coord::RecordKind>(kind)) {
            case coord::RecordKind::truncate: print_zxid("truncate to ", in.zxid()); break;
            case coord::RecordKind::accepted: print_accepted(in); break;
            case coord::RecordKind::current: std::printf("current epoch %" PRIu32, in.u32()); break;
            case coord::RecordKind::entry: std::printf("an entry that is damaged"); break;
            default: std::printf("kind %d, %zu bytes", kind, record.size());
        }
        std::printf("\n");
    }
    void on_snapshot(Sequence sequence, BytesView head, std::uint64_t size) override {
        end_of_run();
        coord::Reader in{head};
        in.u32(), in.u32(), in.u8();
        std::printf("  %10" PRIu64 "  snapshot of %" PRIu64 " bytes", sequence, size);
        print_zxid(" at ", in.zxid());
        in.u32();  // the checksum of the entry there
        std::printf(", begun with ");
        print_accepted(in);
        std::printf(" and current epoch %" PRIu32, in.u32());
        std::printf(in.u8() == 1 ? "; it replaced what was before\n" : "\n");
    }
    void end_of_run() {
        if (run_ > 0 && !each_entry_) {
            std::printf("  %10" PRIu64 "  entry", run_first_);
            print_zxid(" ", run_first_zxid_);
            if (run_ > 1) {
                std::printf(", and so on to %" PRIu64, run_first_ + run_ - 1);
                print_zxid(", entry ", run_last_zxid_);
            }
            std::printf("\n");
        }
        run_ = 0;
    }

private:
    void on_entry(Sequence sequence, const coord::Txn& txn) {
        if (run_++ == 0) run_first_ = sequence, run_first_zxid_ = txn.zxid;
        run_last_zxid_ = txn.zxid;
        if (!each_entry_) return;
        std::printf("  %10" PRIu64 "  entry", sequence);
        print_zxid(" ", txn.zxid);
        std::printf(", session 0x%" PRIx64 ", request %" PRIu64 ": ", txn.session.value, txn.cxid);
        print_operation(txn);
        std::printf("\n");
    }
    static void print_accepted(coord::Reader& in) {
        const std::uint32_t epoch = in.u32();
        std::printf("accepted epoch %" PRIu32 " of leader %" PRIu32, epoch, in.u32());
    }

    const bool each_entry_;
    std::uint64_t run_ = 0;  // entries since the last record of another kind
    Sequence run_first_ = 0;
    Zxid run_first_zxid_, run_last_zxid_;
};

// ------------------------------------------------------------------------------------------------
// The state: the snapshot, and every entry after it.

struct Deaf final : coord::ChangeSink {
    void on_created(BytesView, Zxid, BytesView) override {}
    void on_deleted(BytesView, Zxid, BytesView) override {}
    void on_data_changed(BytesView, Zxid, BytesView) override {}
    void on_children_changed(BytesView, Zxid, BytesView) override {}
};

static bool load_snapshot(const coord::Log& log, coord::Machine& machine) {
    constexpr std::size_t piece_bytes = 64 * 1024;
    Bytes piece;
    machine.begin_load();
    for (std::uint64_t at = 0; at < log.snapshot_bytes(); at += piece_bytes) {
        piece.clear();
        if (log.read_snapshot(at, piece_bytes, piece) != Errc::ok) return false;
        machine.load_piece(piece);
    }
    return machine.end_load() == Errc::ok;
}

static std::size_t apply_entries(const coord::Log& log, coord::Machine& machine) {
    Deaf deaf;
    std::size_t count = 0;
    for (Zxid at = log.snapshot_position().zxid; at < log.last().zxid; count++) {
        coord::Txn txn;
        if (coord::decode_entry(log.entry_after(at), txn) != Errc::ok) break;  // it was sound
        machine.apply(txn, deaf);
        at = txn.zxid;
    }
    return count;
}

// RETURNS what is wrong with it, or "".
static Bytes rebuild(coord::FileStorage& storage, const Options& options, std::uint64_t& digest) {
    coord::Log log{storage};
    const coord::StorageOwner owner{options.ensemble, 0};
    if (log.open(owner) != Errc::ok) return log.reason();  // is it one history, without holes?
    coord::Machine machine{limits, 0};
    const bool has_snapshot = log.snapshot_position().zxid != Zxid{};
    if (has_snapshot && !load_snapshot(log, machine)) return "the snapshot is not a whole state";
    const std::size_t count = apply_entries(log, machine);
    digest = machine.digest();
    print_zxid("state at ", log.last().zxid);
    std::printf(", of %s%zu entries, the newest of them perhaps not committed\n",
                has_snapshot ? "the snapshot and " : "", count);
    std::printf("  digest %016" PRIx64 ", %zu nodes, %zu sessions, epochs: current %" PRIu32
                ", accepted %" PRIu32 " of leader %" PRIu32 "\n",
                digest, machine.tree().size(), machine.sessions().size(), log.epochs().current,
                log.epochs().accepted, log.epochs().accepted_from.value);
    if (options.tree) {
        machine.tree().visit([](const coord::NodeView& node) {
            std::printf("  %s\n", Bytes(node.path).c_str());
        });
    }
    return "";
}

static Findings inspect(Options options) {
    Findings findings;
    ReadOnlyFiles files;
    std::printf("%s\n", options.directory.c_str());
    if (!list_files(files, options)) findings.damage = "there is no storage";
    if (!findings.damage.empty()) return findings;
    coord::FileStorageOptions where;
    where.directory = options.directory;
    where.files = &files;
    coord::FileStorage storage{where};
    Records records{options.entries};
    std::printf("ensemble %" PRIu64 ", its records:\n", options.ensemble);
    const Errc error = storage.open(records, coord::StorageOwner{options.ensemble, 0});
    storage.check_snapshots();
    records.end_of_run();
    findings.report = storage.report();
    std::printf("%s\n", findings.report.text().c_str());
    if (error != Errc::ok) {
        findings.damage = coord::name(error) + (": " + storage.reason());
    } else {
        findings.damage = rebuild(storage, options, findings.digest);
    }
    if (findings.damage.empty() && findings.report.snapshots_bad > 0) {
        findings.damage = "a snapshot is damaged; an older one and a longer log stand in for it";
    }
    return findings;
}

static void print_verdict(const Findings& findings) {
    const char* const verdicts[] = {"sound", "sound; a torn tail will be cut off", "NOT SOUND: "};
    std::printf("%s%s\n\n", verdicts[findings.exit_code()], findings.damage.c_str());
}

// ------------------------------------------------------------------------------------------------
// The demonstration: a storage with a few dozen entries and a snapshot; then damage of two kinds.

// RETURNS the digest of its state, or 0 if something went wrong.
static std::uint64_t make_storage(const Bytes& directory) {
    coord::FileStorageOptions where;
    where.directory = directory;
    where.segment_bytes = 64 * 1024;
    coord::FileStorage storage{where};
    coord::ReplicaOptions options;
    options.ensemble = 24301;
    options.snapshot_every_entries = 20;
    coord::Replica replica{options, storage};
    coord::Time clock;
    auto pump = [&] { return replica.poll(clock = clock + coord::milliseconds(1)), true; };
    const Result<coord::Session> session = coord::Sync::open(replica, {}, pump);
    if (!session) return 0;
    coord::Sync zk{*session, pump};
    if (!zk.create("/javaer", "www.javaer.com.cn") || !zk.create("/workers", "")) return 0;
    for (int i = 0; i < 25; i++) {
        auto mode = coord::CreateMode::persistent_sequential;
        if (!zk.create("/workers/w-", "one of many", mode)) return 0;
    }
    for (int i = 0; i < 100; i++) pump();  // the snapshot is done
    if (!zk.set("/javaer", "the last word")) return 0;
    return replica.status().digest;
}

static bool overwrite(const Bytes& path, std::size_t offset, BytesView bytes) {
    const auto files = coord::system_files();
    const Result<FileId> file = files->open(path, coord::Files::Mode::write);
    if (!file) return false;
    const Errc error = files->write(*file, offset, bytes);
    files->close(*file);
    return error == Errc::ok;
}

static int failed(const char* what) { return std::printf("FAILED: %s\n", what), 1; }

// The names and the contents of all files.
static Bytes everything(const Bytes& directory) {
    ReadOnlyFiles files;
    std::vector<Bytes> names;
    Bytes all;
    if (files.list(directory, names) != Errc::ok) return "";
    std::sort(names.begin(), names.end());
    std::uint64_t size = 0;
    for (const Bytes& name : names) {
        all += name + "\n";
        read_head(files, directory + "/" + name, SIZE_MAX, all, size);  // a directory has none
    }
    return all;
}

// Inspects, and sees that this has left everything as it was.
static bool inspect_unchanged(const Options& options, Findings& findings) {
    const Bytes before = everything(options.directory);
    findings = inspect(options);
    print_verdict(findings);
    return !before.empty() && everything(options.directory) == before;
}

static int demonstrate() {
    ScratchDirectory scratch;
    Options options;
    options.directory = scratch.path() + "/storage";
    const std::uint64_t digest = make_storage(options.directory);
    const Bytes log = options.directory + "/log.0000000000000001";
    Bytes whole;
    std::uint64_t size = 0;
    ReadOnlyFiles files;
    if (scratch.path().empty() || digest == 0) return failed("no storage was made");
    if (!read_head(files, log, SIZE_MAX, whole, size)) return failed("no log");
    Findings found;
    options.entries = options.tree = true;
    if (!inspect_unchanged(options, found)) return failed("inspecting has changed something");
    if (found.exit_code() != 0 || found.digest != digest) return failed("not the replica's state");
    if (found.report.snapshot == 0) return failed("no snapshot");

    std::printf("Bytes behind the last record, as a write that a crash has torn leaves them.\n");
    const std::size_t end = whole.find_last_not_of('\0') + 1;
    if (!overwrite(log, end + 8, Bytes(64, 'U'))) return failed("cannot write");
    options.entries = options.tree = false;
    if (!inspect_unchanged(options, found)) return failed("inspecting has changed something");
    if (found.exit_code() != 1 || found.digest != digest) return failed("not taken for a tear");

    std::printf("One byte flipped, of a record that was durable.\n");
    const std::size_t at = whole.find("www.javaer.com.cn");
    if (at == Bytes::npos || !overwrite(log, at, "W")) return failed("cannot write");
    if (!inspect_unchanged(options, found)) return failed("inspecting has changed something");
    if (found.exit_code() != 2 || found.report.damaged_at == 0) return failed("damage not seen");
    if (found.damage.find(log) == Bytes::npos) return failed("damage not named");
    std::printf("What was done to the storage was told, and inspecting it has changed nothing.\n");
    return 0;
}

// ------------------------------------------------------------------------------------------------

static bool parse(int count, char** arguments, Options& options) {
    for (int i = 1; i < count; i++) {
        const BytesView argument = arguments[i];
        if (argument == "--entries") {
            options.entries = true;
        } else if (argument == "--tree") {
            options.tree = true;
        } else if (argument == "--ensemble" && i + 1 < count) {
            char* end = nullptr;
            options.ensemble = std::strtoull(arguments[++i], &end, 0);
            options.has_ensemble = true;
            if (*end != 0 || end == arguments[i]) return false;
        } else if (options.directory.empty() && argument.substr(0, 1) != "-") {
            options.directory = argument;
        } else {
            return false;
        }
    }
    return !options.directory.empty();
}

int main(int count, char** arguments) {
    if (count == 1) return demonstrate();
    Options options;
    if (!parse(count, arguments, options)) {
        std::printf("inspect DIRECTORY [--ensemble N] [--entries] [--tree]\n");
        return 3;
    }
    const Findings findings = inspect(options);
    print_verdict(findings);
    return findings.exit_code();
}
