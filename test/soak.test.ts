import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { environment } from './helpers/process.ts'

/** Runs the soak in a process of its own and awaits its exit, so that anything that holds the process fails the test. */
function soak (cycles: number): Promise<{ code: number, lines: string[] }> {
  const script = fileURLToPath(new URL('soak.ts', import.meta.url))
  return new Promise(resolve => {
    execFile(process.execPath, ['--expose-gc', '--import', 'tsx', script], { env: environment({ SOAK_CYCLES: String(cycles) }), timeout: 180_000 }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code ?? -1), lines: `${stdout}${stderr}`.trim().split('\n') })
    })
  })
}

t.test('members that joined and left in every possible way leave no state and no objects behind', { timeout: 200_000 }, async t => {
  const { code, lines } = await soak(2_000)
  for (const line of lines) t.comment(line)
  t.equal(lines.at(-1), 'nothing is left')
  t.equal(code, 0)
})
