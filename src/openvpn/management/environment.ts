/** Which variables of a client or of the interface are told to who manages: `env-filter`. Source: OpenVPN's src/openvpn/manage.c, env_filter_match. */

/** Beginnings of `NAME=`, as some are of several variables. */
const OF_INTEREST = [
  ...['username=', 'password=', 'X509_0_CN=', 'tls_serial_', 'untrusted_ip=', 'ifconfig_local='],
  ...['ifconfig_netmask=', 'daemon_start_time=', 'daemon_pid=', 'dev=', 'ifconfig_pool_remote_ip='],
  ...['ifconfig_pool_netmask=', 'time_duration=', 'bytes_sent=', 'bytes_received='],
]

/** @param level 0: all; 1: what is of interest, and all of certificates; 2: what is of interest; above: none */
export function isTold(name: string, level: number): boolean {
  if (level === 0) return true
  if (level <= 1 && name.startsWith('X509_')) return true
  return level <= 2 && OF_INTEREST.some((beginning) => `${name}=`.startsWith(beginning))
}
