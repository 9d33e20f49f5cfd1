// A rank in a process of its own: registers, prints "welcome" or the rejection, and stays until killed.
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const [socket, job, rank] = process.argv.slice(2);
const addon = createRequire(import.meta.url)(
  fileURLToPath(new URL("../../build/Release/symvirt.node", import.meta.url)),
);
const hello = Buffer.alloc(304);
hello.writeUInt32LE(0x314d5653, 0);
hello.writeUInt16LE(1, 4);
hello.writeUInt16LE(1, 6);
hello.writeUInt32LE(280, 16);
hello.writeUInt32LE(Number(rank), 24);
hello.writeUInt32LE(2, 28);
hello.writeUInt32LE(process.pid, 36);
hello.write(job, 48);

const connection = addon.connect(socket);
connection.watch(true, false, () => {
  const bytes = connection.receive();
  if (bytes === null) return;
  if (bytes.length === 0) return connection.unwatch();
  const type = bytes.readUInt16LE(6);
  if (type === 16) process.stdout.write("welcome\n");
  if (type === 20) process.stdout.write(`${bytes.toString("utf8", 28, bytes.indexOf(0, 28))}\n`);
});
connection.send(hello);
setInterval(() => undefined, 60_000);
