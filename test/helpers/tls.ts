// TLS with a pre-shared key, which needs no certificate.

const shared = Buffer.from('of the tests alone')
export const tls = { ciphers: 'PSK-AES128-GCM-SHA256', maxVersion: 'TLSv1.2', pskCallback: () => shared } as const
export const tlsClient = { ...tls, pskCallback: () => ({ psk: shared, identity: 'test' }), checkServerIdentity: () => undefined } as const
