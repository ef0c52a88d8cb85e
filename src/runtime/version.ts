/** What `ovpn --version` prints; package.json has the same (version.test.ts). */
export const VERSION = '0.1.0'
