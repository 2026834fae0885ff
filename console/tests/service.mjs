// A service of a test's own on a fresh data directory, and programs beside it. `end` stops them and takes all of it away.
// CONSOLE_PROGRAM is the program. Everything that is started here inherits where the service is.
import { execFileSync, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const program = process.env.CONSOLE_PROGRAM ?? 'tenancy';
export const home = await mkdtemp(join(tmpdir(), 'console-'));
// The database's account goes through it.
await chmod(home, 0o711);
const data = join(home, 'data');
const started = [];

export function start(command, words, variables = {}) {
  const child = spawn(command, words, { env: { ...process.env, ...variables }, stdio: ['ignore', 'pipe', 'ignore'] });
  child.stdout.resume();
  started.push(() => child.kill());
  const ended = new Promise((done) => child.once('exit', done));
  started.push(() => ended);
  return child;
}

export async function answers(url) {
  for (let turn = 0; turn < 150; turn++) {
    const found = await fetch(url).catch(() => null);
    if (found?.ok) return url;
    await new Promise((done) => setTimeout(done, 200));
  }
  throw new Error(`${url} does not answer`);
}

/** Starts the service, with settings by their names in the environment. */
export async function startService(port, settings = {}) {
  prepare(port, settings);
  start(program, []);
  await answers(`${process.env.CONSOLE_SERVICE}/health/ready`);
  return process.env.CONSOLE_SERVICE;
}

/** As a newcomer does: in a terminal, where the start prints the first link. */
export async function startInTerminal(port, settings = {}) {
  prepare(port, settings);
  // `script` makes the terminal. It would kill what it runs without asking, so the program is told itself.
  const child = start('script', ['--quiet', '--return', '--flush', '--command', 'echo "pid=$$"; exec "$CONSOLE_PROGRAM"', '/dev/null'], {
    CONSOLE_PROGRAM: program,
  });
  let said = '';
  child.stdout.on('data', (part) => {
    said += part;
  });
  started.unshift(() => process.kill(Number(/pid=(\d+)/.exec(said)[1])));
  await answers(`${process.env.CONSOLE_SERVICE}/health/ready`);
  // It says so a moment after it answers.
  const link = () => /http\S+\/console\/#code=\S+/.exec(said)?.[0];
  for (let turn = 0; turn < 50 && !link(); turn++) await new Promise((done) => setTimeout(done, 100));
  if (!link()) throw new Error(`no link: ${said}`);
  return { service: process.env.CONSOLE_SERVICE, link: link() };
}

function prepare(port, settings) {
  const listen = `127.0.0.1:${port}`;
  Object.assign(process.env, settings, { TENANCY_DATA_DIR: data, TENANCY_LISTEN: listen, CONSOLE_SERVICE: `http://${listen}` });
}

/** The console before this service. Without a provider, a code is an address and people are no operators. */
export async function startPages(port, settings = {}) {
  start(process.execPath, ['dev-server.mjs'], { ...settings, PORT: `${port}` });
  const url = `http://127.0.0.1:${port}`;
  await answers(`${url}/console/`);
  return url;
}

/** What a command of the program prints. */
export const tenancy = (...words) => execFileSync(program, words, { stdio: ['ignore', 'pipe', 'ignore'] }).toString().trim();

/** Runs statements in the service's private database, past every trigger: as the one who has the machine. */
export function tamper(statements) {
  const [, , , port, socket] = readFileSync(join(data, 'postgres/postmaster.pid'), 'utf8').split('\n');
  const words = ['--host', socket, '--port', port, '--username', 'tenancy', '--dbname', 'tenancy', '--no-psqlrc', '--quiet'];
  const script = `SET session_replication_role = replica; ${statements}`;
  return execFileSync('psql', [...words, '--tuples-only', '--no-align', '--set', 'ON_ERROR_STOP=1', '--command', script])
    .toString()
    .trim();
}

export async function end() {
  for (const step of started) await step();
  await rm(home, { recursive: true, force: true });
}
