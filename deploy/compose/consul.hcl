# One agent that is its own server, for one machine. What it decides with itself stays at 127.0.0.1.
server           = true
bootstrap_expect = 1
node_name        = "consul"
data_dir         = "/consul/data"
bind_addr        = "127.0.0.1"
client_addr      = "0.0.0.0"

ports {
  dns      = -1
  grpc     = -1
  grpc_tls = -1
  serf_wan = -1
}

connect { enabled = false }
performance { raft_multiplier = 1 }
ui_config { enabled = true }
disable_update_check     = true
enable_script_checks     = false
disable_remote_exec      = true
