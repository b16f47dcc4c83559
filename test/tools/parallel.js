// Runs npm scripts side by side, for a machine with several cores: node test/tools/parallel.js lint typecheck
// Prints the output of each when it has ended, and fails if one of them has.
import { spawn } from 'node:child_process'

const results = await Promise.all(process.argv.slice(2).map(name => new Promise(resolve => {
  const child = spawn('npm', ['run', name], { stdio: ['ignore', 'pipe', 'pipe'], shell: process.platform === 'win32' })
  let output = ''
  child.stdout.on('data', data => { output += data })
  child.stderr.on('data', data => { output += data })
  child.on('close', code => {
    process.stdout.write(output)
    resolve(code)
  })
})))
process.exitCode = results.every(code => code === 0) ? 0 : 1
