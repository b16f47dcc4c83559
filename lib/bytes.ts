/** Returns bytes as a Buffer, without a copy: clients of brokers, and ports of worker threads, give either. */
export function bufferOf (bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
