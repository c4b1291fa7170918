// The numbers of a server: what it counts itself, and what its replica says of itself, by the names
// that ZooKeeper has for them where it has any. mntr and the HTTP pages show the same.
#pragma once

#include "service.hpp"

#include <string>

#include <dirent.h>
#include <sys/resource.h>

namespace zkserver {

struct ServerMetric {
    std::string name;
    const char* help;
    bool is_counter;
    double value;
};

inline std::size_t open_files() {
    std::size_t count = 0;
    if (DIR* const folder = opendir("/proc/self/fd")) {
        while (readdir(folder) != nullptr) count += 1;
        closedir(folder);
    }
    return count > 3 ? count - 3 : 0;  // . and .. and the folder
}

// Of what both count the server's own number is shown: it is that of its clients' requests.
template <class Visit>
void visit_server_metrics(const Service& service, Visit&& visit) {
    const Counters& counters = service.counters;
    rlimit most{};
    getrlimit(RLIMIT_NOFILE, &most);
    const auto number = [](auto value) { return static_cast<double>(value); };
    const ServerMetric own[] = {
        {"zk_avg_latency", "ms of a request", false, counters.mean_ms()},
        {"zk_max_latency", "ms of a request", false, number(counters.max_ms())},
        {"zk_min_latency", "ms of a request", false, number(counters.min_ms())},
        {"zk_packets_received", "frames of clients", true, number(counters.received)},
        {"zk_packets_sent", "frames to clients", true, number(counters.sent)},
        {"zk_num_alive_connections", "clients", false, number(service.connections())},
        {"zk_outstanding_requests", "requests without an answer", false,
         number(service.outstanding)},
        {"zk_connection_rejected", "clients that were sent away", true,
         number(service.refused_connections)},
        {"zk_stale_sessions_expired", "sessions that were silent here", true,
         number(service.sessions_expired)},
        {"zk_uptime", "ms since the start", false,
         number((service.now - service.started_at).ns / 1000000)},
        {"zk_max_file_descriptor_count", "as it is allowed", false, number(most.rlim_cur)},
        {"zk_open_file_descriptor_count", "files and sockets", false, number(open_files())},
    };
    for (const ServerMetric& metric : own) visit(metric);
    const auto is_own = [&own](BytesView name) {
        for (const ServerMetric& metric : own) {
            if (metric.name == name) return true;
        }
        return false;
    };
    service.replica.visit_metrics([&](const coord::Metric& metric) {
        if (is_own(metric.name)) return;
        visit(ServerMetric{metric.name, metric.help,
                           metric.kind == coord::Metric::Kind::counter, number(metric.value)});
    });
}

// Without an exponent, and without a fraction where there is none.
inline std::string number_text(double value) {
    char text[64];
    const bool is_whole = value == static_cast<double>(static_cast<std::int64_t>(value));
    std::snprintf(text, sizeof text, is_whole ? "%.0f" : "%.4f", value);
    return text;
}

}  // namespace zkserver
