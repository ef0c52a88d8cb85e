/** Where `ovpn driver` listens unless told otherwise. */
export const DEFAULT_SOCKET = '/run/ovpn/driver.sock'
