// A server that ZooKeeper's clients can use, from coord.hpp and a zoo.cfg.
//
//     zkserver CONFIG                  as its zoo.cfg says
//     zkserver standalone PORT DIR     one server, on the loopback, that keeps its data there
//
// The files beside this one, in the order in which they use each other:
//
//     jute.hpp        the client protocol's records, as bytes
//     config.hpp      zoo.cfg
//     members.hpp     who is in the ensemble, and what a reconfig asks for
//     connection.hpp  a client's connection, without its socket
//     service.hpp     the connections together, and the sessions that have none
//     metrics.hpp     the numbers that it shows
//     words.hpp       the four-letter words
//     pages.hpp       what it says by HTTP
//     sockets.hpp     sockets, epoll, clocks
//     peers.hpp       the transport between the servers of an ensemble
//     admin.hpp       the HTTP server
//     server.hpp      the event loop
#include "server.hpp"

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <optional>
#include <string>

#include <signal.h>
#include <sys/random.h>
#include <sys/signalfd.h>

namespace {

using namespace zkserver;

std::uint32_t log_id = 0;

void log_line(const char* level, const std::string& text) {
    const std::int64_t wall_ms = read_wall_ms();
    const time_t seconds = static_cast<time_t>(wall_ms / 1000);
    tm local{};
    localtime_r(&seconds, &local);
    char stamp[32];
    std::strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", &local);
    std::fprintf(stderr, "%s,%03d [myid:%u] - %-5s - %s\n", stamp,
                 static_cast<int>(wall_ms % 1000), log_id, level, text.c_str());
}
void info(const std::string& text) { log_line("INFO", text); }
void warn(const std::string& text) { log_line("WARN", text); }
int fail(const std::string& text) { return log_line("ERROR", text), 1; }

bool read_file(const std::string& path, std::string& text) {
    std::FILE* const file = std::fopen(path.c_str(), "rb");
    if (file == nullptr) return false;
    char chunk[4096];
    for (std::size_t size; (size = std::fread(chunk, 1, sizeof chunk, file)) > 0;) {
        text.append(chunk, size);
    }
    const bool is_good = std::ferror(file) == 0;
    std::fclose(file);
    return is_good;
}

std::uint64_t draw() {
    std::uint64_t number = 0;
    while (getrandom(&number, sizeof number, 0) != static_cast<ssize_t>(sizeof number)) {}
    return number;
}

// What the replica has to say to an operator.
class ReplicaLog final : public coord::ReplicaObserver {
public:
    void on_log(coord::PeerId, const coord::LogLine& line) override {
        log_line(coord::name(line.level), std::string(line.text));
    }
};

// RETURNS "", or what is wrong.
std::string read_config(int argc, char** argv, Config& config) {
    if (argc == 4 && std::string(argv[1]) == "standalone") {
        config.tick_ms = 2000, config.init_limit = 10, config.sync_limit = 5;
        config.data_dir = config.data_log_dir = argv[3];
        config.all_words = true;
        const bool is_port = ConfigReader::to_number(argv[2], 0, 65535, config.client_port);
        return is_port ? "" : "not a port: " + std::string(argv[2]);
    }
    std::string text;
    if (argc != 2) return "usage: zkserver CONFIG | zkserver standalone PORT DIRECTORY";
    if (!read_file(argv[1], text)) return std::string(argv[1]) + ": cannot be read";
    const std::string error = ConfigReader(config).read(text, read_file);
    return error.empty() ? "" : std::string(argv[1]) + ": " + error;
}

// Which of the servers this one is. RETURNS "", or what is wrong.
std::string find_self(Config& config, std::uint32_t& id) {
    id = 1;
    if (config.is_standalone()) return "";
    std::string text;
    const std::string path = config.data_dir + "/myid";
    if (!read_file(path, text)) return path + ": cannot be read; it has this server's number";
    id = read_myid(text);
    if (id == 0) return path + ": wants a number from 1 to 255";
    const Member* const self = config.find_member(id);
    if (self == nullptr) return path + ": there is no server." + std::to_string(id);
    if (config.is_observer && !self->is_observer) {
        return "peerType=observer: server." + std::to_string(id) + " has to say :observer, too";
    }
    config.is_observer = self->is_observer;
    if (config.client_port == 0) config.client_port = self->client_port;
    if (config.client_address.empty()) config.client_address = self->client_host;
    return config.client_port == 0 ? "clientPort is not set" : "";
}

// The ensemble's keys: from a file that nobody else may read. RETURNS "", or what is wrong.
std::string find_keys(const Config& config, std::vector<coord::Bytes>& keys) {
    if (config.key_file.empty()) return "";
    struct stat file{};
    std::string text;
    const bool is_there = ::stat(config.key_file.c_str(), &file) == 0;
    if (!is_there || !read_file(config.key_file, text)) return config.key_file + ": cannot be read";
    if ((file.st_mode & 077) != 0) return config.key_file + ": others may read it: chmod 600";
    const std::string error = read_keys(text, keys);
    return error.empty() ? "" : config.key_file + ": " + error;
}

coord::FileStorageOptions storage_options(const Config& config) {
    coord::FileStorageOptions options;
    options.directory = config.data_log_dir + "/coord-log";
    options.snapshot_directory = config.data_dir + "/coord-snapshots";
    options.snapshots_kept = static_cast<std::uint32_t>(config.snapshots_kept);
    options.purge_interval = coord::seconds(3600) * config.purge_hours;
    return options;
}

// All servers of an ensemble need the same jute.maxbuffer, which these follow.
coord::Limits limits_of(const Config& config) {
    coord::Limits limits;
    limits.path_bytes_max = 32 * 1024;
    limits.data_bytes_max = static_cast<std::uint32_t>(config.frame_bytes_max);
    limits.sessions_max = limits.ephemerals_per_session_max = limits.watches_per_session_max =
        1024 * 1024;
    limits.list_max = 4 * 1024 * 1024;
    limits.answer_bytes_max = 64 * 1024 * 1024;
    limits.multi_parts_max = 64 * 1024;
    limits.acl_entries_max = 1024;
    return limits;
}

coord::ReplicaOptions replica_options(const Config& config, std::uint32_t id) {
    coord::ReplicaOptions options;
    if (!config.is_standalone()) {
        options.id = coord::PeerId{id};
        options.voters.clear();
        // One that is not among the voters observes. Who is, once there is an ensemble, is in its
        // log: here are those who found it, and whom one that joins asks first.
        for (const Member& member : config.members) {
            options.members.push_back(member_of(member));
            if (!member.is_observer) options.voters.push_back(coord::PeerId{member.id});
        }
        for (const std::uint32_t feeder : config.feeders) {
            options.feeders.push_back(coord::PeerId{feeder});
        }
        options.ensemble = coord::hash64("zkserver", 0);  // of all: addresses may change
        options.entropy = draw();
    }
    const int beat_ms = (std::min)((std::max)(config.tick_ms / 20, 20), 500);
    options.timing.heartbeat = coord::milliseconds(beat_ms);
    options.timing.silence = coord::milliseconds((std::max)(beat_ms * 5, 400));
    options.timing.reap_interval = coord::milliseconds(config.reap_interval_ms);
    options.timing.reaps_per_minute = static_cast<std::uint32_t>(config.reaps_per_minute);
    options.session_timeout_min = coord::milliseconds(config.timeout_min_ms());
    options.session_timeout_max = coord::milliseconds(config.timeout_max_ms());
    options.snapshot_every_entries = static_cast<std::uint32_t>(config.snapshot_every);
    options.limits = limits_of(config);
    options.super_digest = config.super_digest;
    return options;
}

// RETURNS "", or what is wrong.
std::string open_peers(const Config& config, std::uint32_t id, Peers& peers) {
    for (const Member& member : config.members) {
        const bool is_self = member.id == id;
        const std::string error =
            is_self ? peers.open(member.host, member.peer_port, config.peer_port)
                    : peers.add(coord::PeerId{member.id}, member.host, member.peer_port,
                                !config.reconfig);
        if (!error.empty()) return "server." + std::to_string(member.id) + ": " + error;
    }
    return "";
}

// SIGTERM and SIGINT end the loop: see Server::run. The files are as they must be at any time.
void watch_signals(Poller& poller, Fd& stop) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM), sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, nullptr);
    stop = Fd(signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC));
    poller.add(stop.get(), EPOLLIN, {Tag::Kind::stop, static_cast<std::uint32_t>(stop.get())});
}

void raise_file_limit() {
    rlimit files{};
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

int run(Service& service, Poller& poller, Peers* peers) {
    Server server(service, poller, peers);
    const Config& config = service.config;
    const std::string host = config.client_address.empty() ? "127.0.0.1" : config.client_address;
    const std::string error = server.open(host, config.client_port);
    if (!error.empty()) return fail("clients: " + error);
    info("listens to clients at " + host + ", port " + std::to_string(server.port()));
    if (config.admin_server) {
        const std::string wrong = server.open_admin(config.admin_address, config.admin_port);
        if (!wrong.empty()) return fail("admin.serverPort: " + wrong);
        info("HTTP at " + config.admin_address + ", port " + std::to_string(server.admin_port()));
    }
    server.run();
    const coord::ReplicaStatus status = service.replica.status();
    if (status.role == coord::Role::failed) {
        return fail(std::string("the replica has failed: ") + status.reason);
    }
    info("stops");
    return 0;
}

int serve(const Config& config, std::uint32_t id, const std::vector<coord::Bytes>& keys) {
    Poller poller;
    Fd stop;
    watch_signals(poller, stop);
    const Fd wake(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    const auto wake_index = static_cast<std::uint32_t>(wake.get());
    poller.add(wake.get(), EPOLLIN, {Tag::Kind::wake, wake_index});

    coord::FileStorage files(storage_options(config));
    coord::BackgroundStorage storage(files, [fd = wake.get()] {
        const std::uint64_t one = 1;
        if (::write(fd, &one, sizeof one) < 0) return;  // it is full: the loop wakes all the same
    });
    coord::ReplicaOptions options = replica_options(config, id);
    if (!config.is_standalone()) options.ensemble_keys = keys;
    const Bytes skip_credential = "super:" + std::to_string(draw());
    if (config.skip_acl) options.super_digest = coord::digest_id(skip_credential);

    const std::size_t message_bytes =
        static_cast<std::size_t>(config.frame_bytes_max) * 2 + 1024 * 1024;
    Peers peers(poller, options.id, message_bytes);
    if (!config.is_standalone()) {
        const std::string error = open_peers(config, id, peers);
        if (!error.empty()) return fail(error);
    }
    ReplicaLog log;
    std::optional<coord::Replica> place;
    config.is_standalone() ? place.emplace(options, storage)
                           : place.emplace(options, storage, peers, &log);
    coord::Replica& replica = *place;
    info("storage: " + files.report().text());
    if (replica.status().role == coord::Role::failed) {
        return fail(std::string("storage: ") + replica.status().reason + " " + files.reason());
    }

    Service service(replica, config, id);
    service.now = service.started_at = read_clock();
    service.random = [] { return draw(); };
    service.log = [](const std::string& text) { info(text); };
    service.accepts_super_for_all = config.skip_acl;
    service.super_for_all = skip_credential;
    const int code = run(service, poller, config.is_standalone() ? nullptr : &peers);
    place.reset();  // what its watchers hold looks at the service
    return code;
}

}  // namespace

int main(int argc, char** argv) {
    Config config;
    std::uint32_t id = 0;
    std::string error = read_config(argc, argv, config);
    if (error.empty()) error = find_self(config, id);
    std::vector<coord::Bytes> keys;
    if (error.empty()) error = find_keys(config, keys);
    if (!error.empty()) return fail(error);
    if (!config.is_standalone()) log_id = id;
    for (const std::string& warning : config.warnings) warn(warning);
    raise_file_limit();
    for (const std::string& directory : {config.data_dir, config.data_log_dir}) {
        for (std::size_t end = 0; end != std::string::npos;) {
            end = directory.find('/', end + 1);
            const std::string part = directory.substr(0, end);
            if (::mkdir(part.c_str(), 0777) != 0 && errno != EEXIST) {
                return fail(part + ": " + std::strerror(errno));
            }
        }
    }
    return serve(config, id, keys);
}
