#!/usr/bin/env node
// Publish one Retouch task to RabbitMQ and wait for its event.
//
// The event goes to standard output as it was received, everything else to standard error.
// Exit codes: 0 completed, 1 partial or failed, 2 usage, 3 could not connect, or no event in time.
// The message contract is docs/contract.md.

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import amqp from "amqplib";

const DEFAULT_URL = "amqp://guest:guest@localhost:5672/%2F";
const ROUTING_KEY = "tasks";
const MAX_MESSAGE = 16 * 1024 * 1024;
const MAX_IMAGES = 64;
const CONNECT_MS = 10_000;

const NO_WORKER = "Has a worker started with this namespace? It declares the exchange and its queues.";

const DONE = 0, FAILED = 1, USAGE = 2, UNREACHABLE = 3;

const HELP = `usage: publish.mjs [options] IMAGE...

Publish one Retouch task and print its event.

  IMAGE                an http(s) URL, sha256:… of a blob the workers have, or a file
  --amqp-url URL       the broker (environment: AMQP_URL; otherwise guest on localhost)
  --namespace NAME     the workers' namespace (environment: RETOUCH_NAMESPACE; otherwise retouch)
  --type EDIT_TYPE     the edit type, such as remove_watermark
  --prompt TEXT        what to do; some edit types need none
  --param NAME=JSON    one parameter of the edit; may be repeated
  --task-id ID         the idempotency key; otherwise a new one
  --timeout SECONDS    how long to wait for the event (300)

example: publish.mjs --type remove_watermark --prompt 'Remove the watermark' --param seed=7 cat.jpg`;

// By content, as the worker does it: a file's name says nothing reliable.
const SIGNATURES = [
  [/^\x89PNG\r\n\x1a\n/, "image/png"],
  [/^\xff\xd8\xff/, "image/jpeg"],
  [/^GIF8[79]a/, "image/gif"],
  [/^RIFF....WEBP/s, "image/webp"],
  [/^BM/, "image/bmp"],
  [/^(II\*\x00|MM\x00\*)/, "image/tiff"],
];

/** The caller asked for something that can't be sent. */
class Usage extends Error {}
/** The broker, or the event, could not be reached. */
class Unreachable extends Error {}

// ---- the message

/** One entry of `images`: a URL, a blob the workers already have, or a file's bytes. */
function image(argument) {
  if (/^https?:\/\//i.test(argument)) return { url: argument };
  if (argument.startsWith("sha256:")) {
    if (!/^sha256:[0-9a-f]{64}$/.test(argument)) throw new Usage(`${argument}: a blob is sha256: and 64 lower-case hex digits`);
    return { blob: argument };
  }
  let content;
  try {
    content = readFileSync(argument);
  } catch (error) {
    throw new Usage(`${argument}: ${error.code === "ENOENT" ? "No such file or directory" : error.message}`);
  }
  const start = content.subarray(0, 12).toString("latin1");
  const mime = SIGNATURES.find(([signature]) => signature.test(start))?.[1];
  if (!mime) throw new Usage(`${argument}: not a PNG, JPEG, GIF, WebP, BMP or TIFF picture`);
  return { data: `data:${mime};base64,${content.toString("base64")}` };
}

/** `K=V` pairs as an object; V is JSON, so that 7 and "7" stay two things. */
function params(args) {
  const found = new Map();
  for (const argument of args) {
    const at = argument.indexOf("=");
    if (at < 1) throw new Usage(`--param ${argument}: write NAME=JSON`);
    const name = argument.slice(0, at), value = argument.slice(at + 1);
    if (found.has(name)) throw new Usage(`--param ${name}: given twice`);
    try {
      found.set(name, JSON.parse(value));
    } catch {
      throw new Usage(`--param ${argument}: '${value}' is not JSON; a text needs quotes: '${name}="…"'`);
    }
  }
  return Object.fromEntries(found);
}

function message(options, images) {
  if (!options.type) throw new Usage("--type is needed");
  if (images.length < 1 || images.length > MAX_IMAGES)
    throw new Usage(`a task has 1 to ${MAX_IMAGES} images, not ${images.length}`);
  if (!/^[A-Za-z0-9._:-]{1,64}$/.test(options["task-id"]))
    throw new Usage(`--task-id '${options["task-id"]}': 1 to 64 of A-Z a-z 0-9 . _ : -`);
  const task = { v: 1, task_id: options["task-id"], edit_type: options.type, prompt: options.prompt };
  if (options.param.length > 0) task.params = params(options.param);
  task.images = images.map(image);
  const body = Buffer.from(JSON.stringify(task), "utf8");
  if (body.length > MAX_MESSAGE)
    throw new Usage(`the message has ${body.length} bytes, more than ${MAX_MESSAGE}: send big pictures by URL or blob`);
  return body;
}

// ---- the broker

/** Rejects with what `problem` says at the deadline; the timer keeps the program from ending before. */
function before(deadline, problem, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Unreachable(problem())), Math.max(0, deadline - Date.now()));
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function connect(url) {
  let place;
  try {
    const { protocol, hostname, port } = new URL(url);
    if (!["amqp:", "amqps:"].includes(protocol)) throw new Error(protocol);
    place = `${hostname || "localhost"}:${port || (protocol === "amqps:" ? 5671 : 5672)}`; // never the password
  } catch {
    throw new Usage("--amqp-url: not an AMQP URL such as amqp://user:password@host:5672/vhost");
  }
  try {
    return await amqp.connect(url, { timeout: CONNECT_MS });
  } catch (error) {
    // amqplib does not say so when the broker refuses the virtual host.
    const hint = /ConnectionOpenOk/.test(error.message) ? " (is there such a vhost, and may this user use it?)" : "";
    throw new Unreachable(`no connection to ${place}: ${error.message || error.code || error}${hint}`);
  }
}

/** Resolves when the broker has the message on a queue: confirmed, and not handed back. */
function publish(channel, namespace, body, properties) {
  return new Promise((resolve, reject) => {
    channel.once("return", () => // comes before the confirm
      reject(new Unreachable(`exchange '${namespace}' has no queue for '${ROUTING_KEY}'. ${NO_WORKER}`)));
    channel.once("error", (error) => reject(new Unreachable(`the broker closed the channel: ${error.message}${error.code === 404 ? `. ${NO_WORKER}` : ""}`)));
    channel.publish(namespace, ROUTING_KEY, body, { ...properties, mandatory: true }, (error) =>
      // Let the channel's own error, which says why, come first.
      error ? setImmediate(() => reject(new Unreachable(`the broker refused the message: ${error.message}`))) : resolve());
  });
}

/** Publishes the task, resolves to its event's bytes. */
async function exchange(options, body) {
  const id = options["task-id"];
  const deadline = Date.now() + options.timeout * 1000;
  const again = `Publish it again with --task-id ${id} to be answered: it is counted and paid for once.`;
  const connection = await connect(options["amqp-url"]);
  const lost = new Promise((_, reject) => {
    connection.on("error", (error) => reject(new Unreachable(`the connection was lost: ${error.message}. ${again}`)));
    connection.on("close", () => reject(new Unreachable(`the connection was closed. ${again}`)));
  });
  let blocked;
  connection.on("blocked", (reason) => (blocked = `the broker takes no messages at present: ${reason}. ${again}`));
  connection.on("unblocked", () => (blocked = undefined));
  lost.catch(() => {}); // closing it ourselves, at the end, is no error
  const work = async () => {
    const channel = await connection.createConfirmChannel();
    channel.on("error", () => {}); // publish() reports it
    // Exclusive and named by the broker: it goes when this connection does.
    const { queue } = await channel.assertQueue("", { exclusive: true, durable: false });
    const event = new Promise((resolve, reject) => {
      channel
        .consume(queue, (delivery) => delivery?.properties.correlationId === id && resolve(delivery.content), { noAck: true })
        .catch(reject);
    });
    event.catch(() => {}); // a channel that fails while we publish is reported by publish()
    await publish(channel, options.namespace, body, {
      contentType: "application/json", persistent: true, replyTo: queue, correlationId: id,
    });
    console.error(`task ${id} published, waiting for its event`);
    return await event;
  };
  try {
    const late = () => blocked ?? `no event for ${id} within ${options.timeout} s: it is still under way, or it was refused`
      + ` (see the dead letters). ${again}`;
    return await before(deadline, late, Promise.race([work(), lost]));
  } finally {
    await before(Date.now() + 2000, () => "", connection.close()).catch(() => {});
  }
}

// ---- the command

function parse(argv) {
  let parsed;
  try {
    parsed = parseArgs({
      args: argv,
      allowPositionals: true,
      options: {
        "amqp-url": { type: "string" },
        namespace: { type: "string" },
        type: { type: "string" },
        prompt: { type: "string" },
        param: { type: "string", multiple: true },
        "task-id": { type: "string" },
        timeout: { type: "string" },
        help: { type: "boolean", short: "h" },
      },
    });
  } catch (error) {
    throw new Usage(error.message);
  }
  const given = parsed.values;
  const options = {
    ...given,
    "amqp-url": given["amqp-url"] ?? (process.env.AMQP_URL || DEFAULT_URL),
    namespace: given.namespace ?? (process.env.RETOUCH_NAMESPACE || "retouch"),
    prompt: given.prompt ?? "",
    param: given.param ?? [],
    "task-id": given["task-id"] ?? randomUUID(),
    timeout: Number(given.timeout ?? 300),
  };
  if (!(options.timeout > 0 && options.timeout < 1e6)) throw new Usage(`--timeout ${given.timeout}: a number of seconds`);
  return { options, images: parsed.positionals };
}

function status(event) {
  try {
    return JSON.parse(event.toString("utf8"))?.status;
  } catch {
    return undefined;
  }
}

async function main(argv) {
  try {
    const { options, images } = parse(argv);
    if (options.help) {
      console.log(HELP);
      return DONE;
    }
    const event = await exchange(options, message(options, images));
    process.stdout.write(`${event.toString("utf8")}\n`);
    return status(event) === "completed" ? DONE : FAILED;
  } catch (error) {
    if (!(error instanceof Usage || error instanceof Unreachable)) throw error;
    console.error(`publish.mjs: ${error.message}`);
    return error instanceof Usage ? USAGE : UNREACHABLE;
  }
}

const code = await main(process.argv.slice(2));
process.stdout.write("", () => process.exit(code)); // a connection the broker has blocked would keep us alive
