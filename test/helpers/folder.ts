import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'

/** A folder outside the repository, where no parent has a node_modules, and with a short path. Removed with its test. */
export async function emptyFolder (t: Test): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'fastify-rooms-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}
