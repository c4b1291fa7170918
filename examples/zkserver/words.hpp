// The four-letter words: what an operator, and many a script, asks a server on its client port.
// Their fields are named as ZooKeeper names them.
#pragma once

#include "metrics.hpp"

#include <cstdarg>
#include <map>
#include <string>

#include <dirent.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

namespace zkserver {

__attribute__((format(printf, 2, 3))) inline void print(std::string& out, const char* format, ...) {
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    const int size = std::vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (size <= 0) return;
    out.append(line, (std::min)(static_cast<std::size_t>(size), sizeof line - 1));
}

inline std::string version_text() {
    return "3.8.0-coord-" + std::to_string(COORD_VERSION_MAJOR) + "." +
           std::to_string(COORD_VERSION_MINOR) + "." + std::to_string(COORD_VERSION_PATCH) +
           ", built on coord.hpp";
}

inline const char* const all_words[] = {"ruok", "srvr", "stat", "mntr", "conf", "cons", "dump",
                                        "wchs", "wchc", "wchp", "envi", "isro", "dirs", "crst",
                                        "srst"};

inline bool is_word(BytesView bytes) {
    for (const char* const word : all_words) {
        if (bytes == word) return true;
    }
    return false;
}

class Words {
public:
    explicit Words(Service& service) : service_(service), replica_(service.replica) {}

    std::string answer(const std::string& word) {
        out_.clear();
        if (!service_.config.allows(word)) {
            return word + " is not executed because it is not in the whitelist.\n";
        }
        if (word == "ruok") return "imok";
        if (word == "isro") return "rw";
        if (word == "conf") return conf(), out_;
        if (word == "envi") return envi(), out_;
        if (word == "crst" || word == "srst") return reset(word), out_;
        if (!service_.is_serving()) {
            return "This ZooKeeper instance is not currently serving requests\n";
        }
        if (word == "srvr") return srvr(), out_;
        if (word == "stat") return stat(), out_;
        if (word == "mntr") return mntr(), out_;
        if (word == "cons") return cons(), out_;
        if (word == "dump") return dump(), out_;
        if (word == "wchs") return wchs(), out_;
        if (word == "wchc") return watches(coord::WatchOrder::by_session), out_;
        if (word == "wchp") return watches(coord::WatchOrder::by_path), out_;
        return dirs(), out_;
    }

    const char* mode() const {
        if (service_.is_standalone()) return "standalone";
        const coord::Role role = replica_.status().role;
        if (role == coord::Role::observing) return "observer";
        return role == coord::Role::leading ? "leader" : "follower";
    }

private:
    static unsigned long long hex(coord::Zxid zxid) { return zxid.value; }
    static unsigned long long hex(coord::SessionId id) { return id.value; }

    void srvr() {
        print(out_, "Zookeeper version: %s\n", version_text().c_str());
        srvr_rest();
    }
    void srvr_rest() {
        const Counters& counters = service_.counters;
        print(out_, "Latency min/avg/max: %lld/%.4g/%lld\n",
              static_cast<long long>(counters.min_ms()), counters.mean_ms(),
              static_cast<long long>(counters.max_ms()));
        print(out_, "Received: %llu\n", static_cast<unsigned long long>(counters.received));
        print(out_, "Sent: %llu\n", static_cast<unsigned long long>(counters.sent));
        print(out_, "Connections: %zu\n", service_.connections());
        print(out_, "Outstanding: %zu\n", service_.outstanding);
        print(out_, "Zxid: 0x%llx\n", hex(replica_.machine().applied()));
        print(out_, "Mode: %s\n", mode());
        print(out_, "Node count: %zu\n", replica_.tree().size());
    }
    void stat() {
        print(out_, "Zookeeper version: %s\nClients:\n", version_text().c_str());
        service_.visit([this](const Connection& c) { out_ += c.describe(false) + "\n"; });
        out_ += "\n";
        srvr_rest();
    }
    void cons() {
        service_.visit([this](const Connection& c) { out_ += c.describe(true) + "\n"; });
        out_ += "\n";
    }

    void mntr() {
        print(out_, "zk_version\t%s\n", version_text().c_str());
        print(out_, "zk_server_state\t%s\n", mode());
        visit_server_metrics(service_, [this](const ServerMetric& metric) {
            print(out_, "%s\t%s\n", metric.name.c_str(), number_text(metric.value).c_str());
        });
    }

    void conf() {
        const Config& config = service_.config;
        print(out_, "clientPort=%d\nsecureClientPort=-1\n", config.client_port);
        print(out_, "dataDir=%s\n", config.data_dir.c_str());
        print(out_, "dataDirSize=%llu\n", folder_size(config.data_dir + "/coord-snapshots"));
        print(out_, "dataLogDir=%s\n", config.data_log_dir.c_str());
        print(out_, "dataLogSize=%llu\n", folder_size(config.data_log_dir + "/coord-log"));
        print(out_, "tickTime=%d\n", config.tick_ms);
        print(out_, "maxClientCnxns=%d\n", config.connections_per_address);
        print(out_, "minSessionTimeout=%d\n", config.timeout_min_ms());
        print(out_, "maxSessionTimeout=%d\n", config.timeout_max_ms());
        print(out_, "serverId=%u\n", service_.is_standalone() ? 0 : service_.my_id);
        if (service_.is_standalone()) return;
        print(out_, "initLimit=%d\nsyncLimit=%d\n", config.init_limit, config.sync_limit);
        const Member* const member = config.find_member(service_.my_id);
        if (member != nullptr) {
            print(out_, "electionPort=%d\nquorumPort=%d\npeerType=%d\n", member->election_port,
                  member->peer_port, mode() == std::string("observer") ? 1 : 0);
        }
        out_ += "membership: \n" + service_.config_text() + "\n";
    }

    void envi() {
        utsname system{};
        uname(&system);
        char folder[1024] = "";
        if (getcwd(folder, sizeof folder) == nullptr) folder[0] = 0;
        out_ += "Environment:\n";
        print(out_, "zookeeper.version=%s\n", version_text().c_str());
        print(out_, "host.name=%s\n", system.nodename);
        print(out_, "java.version=none\njava.vendor=none\n");
        print(out_, "os.name=%s\nos.arch=%s\nos.version=%s\n", system.sysname, system.machine,
              system.release);
        print(out_, "user.name=%u\nuser.dir=%s\n", static_cast<unsigned>(getuid()), folder);
    }

    void dump() {
        const auto& sessions = replica_.machine().sessions();
        std::map<std::uint32_t, std::vector<coord::SessionId>> by_timeout;
        for (const auto& session : sessions) {
            by_timeout[session.second.timeout_ms].push_back(session.first);
        }
        print(out_, "SessionTracker dump:\nSession Sets (%zu)/(%zu):\n", by_timeout.size(),
              sessions.size());
        for (const auto& [timeout_ms, ids] : by_timeout) {
            print(out_, "%zu expire after %u ms of silence:\n", ids.size(), timeout_ms);
            for (const coord::SessionId id : ids) print(out_, "\t0x%llx\n", hex(id));
        }
        std::size_t owners = 0;
        const coord::Tree& tree = replica_.tree();
        for (const auto& session : sessions) owners += tree.owned(session.first) > 0;
        print(out_, "ephemeral nodes dump:\nSessions with Ephemerals (%zu):\n", owners);
        for (const auto& session : sessions) {
            if (tree.owned(session.first) == 0) continue;
            print(out_, "0x%llx:\n", hex(session.first));
            tree.list_owned(session.first, "", "", [this](const coord::NodeView& node) {
                out_.append("\t").append(node.path).append("\n");
                return true;
            });
        }
        print(out_, "Connections dump:\nConnections Sets (1)/(%zu):\n", service_.connections());
        service_.visit([this](const Connection& c) { out_ += c.describe(false) + "\n"; });
    }

    void wchs() {
        const coord::WatchCounts counts = replica_.count_watches();
        print(out_, "%zu connections watching %zu paths\nTotal watches:%zu\n", counts.sessions,
              counts.paths, counts.watchers);
    }
    void watches(coord::WatchOrder order) {
        const bool by_path = order == coord::WatchOrder::by_path;
        coord::WatchRow last;
        std::string head, sub;
        for (bool more = true; more;) {
            const std::vector<coord::WatchRow> rows = replica_.list_watches(order, last, 1024);
            more = !rows.empty();
            for (const coord::WatchRow& row : rows) {
                std::string session;
                print(session, "0x%llx", hex(row.session));
                const std::string& first = by_path ? row.path : session;
                const std::string& second = by_path ? session : row.path;
                if (first != head) out_ += first + "\n", sub.clear();
                if (second != sub) out_ += "\t" + second + "\n";
                head = first, sub = second, last = row;
            }
        }
        out_ += "\n";
    }
    void dirs() {
        print(out_, "datadir_size: %llu\nlogdir_size: %llu\n",
              folder_size(service_.config.data_dir + "/coord-snapshots"),
              folder_size(service_.config.data_log_dir + "/coord-log"));
    }
    static unsigned long long folder_size(const std::string& path) {
        unsigned long long bytes = 0;
        DIR* const folder = opendir(path.c_str());
        for (const dirent* entry; folder != nullptr && (entry = readdir(folder)) != nullptr;) {
            struct stat file{};
            const bool is_file = ::stat((path + "/" + entry->d_name).c_str(), &file) == 0 &&
                                 S_ISREG(file.st_mode);
            if (is_file) bytes += static_cast<unsigned long long>(file.st_size);
        }
        if (folder != nullptr) closedir(folder);
        return bytes;
    }
    void reset(const std::string& word) {
        if (word == "crst") {
            service_.visit([](Connection& c) { c.counters = Counters(); });
            out_ = "Connection stats reset.\n";
        } else {
            service_.counters = Counters();
            out_ = "Server stats reset.\n";
        }
    }

    Service& service_;
    coord::Replica& replica_;
    std::string out_;
};

inline std::string answer_word(Service& service, const std::string& word) {
    return Words(service).answer(word);
}

inline std::string Connection::describe(bool in_full) const {
    std::string out;
    const bool is_v6 = host_.find(':') != std::string::npos;
    print(out, " /%s%s%s:%d[%d](queued=%zu,recved=%llu,sent=%llu", is_v6 ? "[" : "",
          host_.c_str(), is_v6 ? "]" : "", port_, state_ == State::ready ? 1 : 0, in_flight_,
          static_cast<unsigned long long>(counters.received),
          static_cast<unsigned long long>(counters.sent));
    if (in_full && session_) {
        const auto ago = [this](coord::Time time) {
            const std::int64_t ms = service_.wall_ms - (service_.now - time).ns / 1000000;
            return static_cast<long long>(ms);
        };
        print(out, ",sid=0x%llx,lop=%s,est=%lld,to=%d",
              static_cast<unsigned long long>(session_->id().value), op_name(last_type_),
              ago(opened_at_), timeout_ms_);
        print(out, ",lcxid=0x%x,lzxid=0x%llx,lresp=%lld", static_cast<unsigned>(last_xid_),
              static_cast<unsigned long long>(told_.value), ago(last_answer_at_));
        print(out, ",llat=%lld,minlat=%lld,avglat=%.0f,maxlat=%lld",
              static_cast<long long>(last_latency_ms_),
              static_cast<long long>(counters.min_ms()), counters.mean_ms(),
              static_cast<long long>(counters.max_ms()));
    }
    return out + ")";
}

}  // namespace zkserver
