// Layered layout of a graph. Pure: sizes in, positions out.
//
// Edges that close a cycle are reversed, nodes get the layer of the longest path to them, edges over several
// layers get a bend in each, layers are sorted to have few crossings, and nodes are moved towards their
// neighbours as far as the others of their layer let them.

const SWEEPS = 12;
const MOVES = 8;

/**
 * Returns `{ length, breadth, nodes, edges }`: `length` along the direction of flow, `breadth` across it.
 * `nodes` maps ids to `{ at, across, layer }`, the middle of each; `edges` has `points` as `[at, across]`.
 * `size` is that of a node: `{ length, breadth }`; `gap` likewise is the room between nodes.
 */
export function layout(ids, links, size, gap) {
  const known = new Set(ids);
  const edges = links.filter((edge) => known.has(edge.from) && known.has(edge.to) && edge.from !== edge.to);
  const directed = acyclic(ids, edges);
  const layerOf = layersOf(ids, directed);
  const { layers, chains } = withBends(ids, directed, layerOf);
  const neighbours = neighboursOf(chains);
  order(layers, neighbours);
  const across = place(layers, neighbours, (node) => (node.isBend ? 10 : size.breadth), gap.breadth);
  const at = (layer) => size.length / 2 + layer * (size.length + gap.length);
  const nodes = new Map();
  for (const layer of layers) {
    for (const node of layer) {
      if (!node.isBend) nodes.set(node.id, { at: at(node.layer), across: across.get(node),
        layer: node.layer });
    }
  }
  const drawn = chains.map(({ edge, isReversed, nodes: chain }) => {
    const points = chain.map((node) => [at(node.layer), across.get(node)]);
    return { edge, isReversed, points: isReversed ? points.reverse() : points };
  });
  const ends = [...across].map(([node, middle]) => middle + (node.isBend ? 5 : size.breadth / 2));
  return {
    length: layers.length ? at(layers.length - 1) + size.length / 2 : 0,
    breadth: ends.length ? Math.max(...ends) : 0,
    nodes,
    edges: drawn,
  };
}

/** Reverses the edges that lead back to a node on the path to it. */
function acyclic(ids, edges) {
  const next = new Map(ids.map((id) => [id, []]));
  const hasInput = new Set(edges.map((edge) => edge.to));
  for (const edge of edges) next.get(edge.from).push(edge);
  const state = new Map();
  const reversed = new Set();
  // Without recursion: a chain of components may be long.
  const visit = (root) => {
    const stack = [[root, 0]];
    state.set(root, "open");
    while (stack.length) {
      const top = stack[stack.length - 1];
      const edge = next.get(top[0])[top[1]];
      top[1] += 1;
      if (!edge) {
        state.set(top[0], "done");
        stack.pop();
      } else if (state.get(edge.to) === "open") {
        reversed.add(edge);
      } else if (!state.has(edge.to)) {
        state.set(edge.to, "open");
        stack.push([edge.to, 0]);
      }
    }
  };
  for (const id of [...ids.filter((id) => !hasInput.has(id)), ...ids]) if (!state.has(id)) visit(id);
  return edges.map((edge) => {
    const isReversed = reversed.has(edge);
    return { edge, isReversed, from: isReversed ? edge.to : edge.from, to: isReversed ? edge.from : edge.to };
  });
}

function layersOf(ids, directed) {
  const layer = new Map(ids.map((id) => [id, 0]));
  const inputs = new Map(ids.map((id) => [id, 0]));
  const next = new Map(ids.map((id) => [id, []]));
  for (const { from, to } of directed) {
    inputs.set(to, inputs.get(to) + 1);
    next.get(from).push(to);
  }
  const ready = ids.filter((id) => inputs.get(id) === 0);
  for (let n = 0; n < ready.length; n += 1) {
    for (const to of next.get(ready[n])) {
      layer.set(to, Math.max(layer.get(to), layer.get(ready[n]) + 1));
      inputs.set(to, inputs.get(to) - 1);
      if (inputs.get(to) === 0) ready.push(to);
    }
  }
  return layer;
}

function withBends(ids, directed, layerOf) {
  const layers = [];
  const add = (node) => {
    (layers[node.layer] ??= []).push(node);
    return node;
  };
  const nodeOf = new Map(ids.map((id) => [id, add({ id, layer: layerOf.get(id), isBend: false })]));
  for (let n = 0; n < layers.length; n += 1) layers[n] ??= [];
  const chains = directed.map(({ edge, isReversed, from, to }) => {
    const nodes = [nodeOf.get(from)];
    for (let layer = layerOf.get(from) + 1; layer < layerOf.get(to); layer += 1) {
      nodes.push(add({ layer, isBend: true }));
    }
    nodes.push(nodeOf.get(to));
    return { edge, isReversed, nodes };
  });
  return { layers, chains };
}

function neighboursOf(chains) {
  const before = new Map();
  const after = new Map();
  const push = (map, node, other) => (map.has(node) ? map.get(node).push(other) : map.set(node, [other]));
  for (const { nodes } of chains) {
    for (let n = 1; n < nodes.length; n += 1) {
      push(after, nodes[n - 1], nodes[n]);
      push(before, nodes[n], nodes[n - 1]);
    }
  }
  return { before, after };
}

/** Sorts each layer by the mean position of the neighbours, back and forth, and keeps the best order. */
function order(layers, { before, after }) {
  const position = new Map();
  const number = (layer) => layer.forEach((node, n) => position.set(node, n));
  layers.forEach(number);
  let best = layers.map((layer) => [...layer]);
  let fewest = crossings(layers, after, position);
  for (let sweep = 0; sweep < SWEEPS && fewest > 0; sweep += 1) {
    const isForward = sweep % 2 === 0;
    const neighbours = isForward ? before : after;
    for (const layer of isForward ? layers.slice(1) : layers.slice(0, -1).reverse()) {
      const wanted = new Map(layer.map((node) => [node, meanOf(neighbours.get(node), position,
        position.get(node))]));
      layer.sort((a, b) => wanted.get(a) - wanted.get(b) || position.get(a) - position.get(b));
      number(layer);
    }
    const n = crossings(layers, after, position);
    if (n < fewest) [fewest, best] = [n, layers.map((layer) => [...layer])];
  }
  best.forEach((layer, n) => {
    layers[n] = layer;
  });
}

function meanOf(nodes, position, otherwise) {
  if (!nodes?.length) return otherwise;
  return nodes.reduce((sum, node) => sum + position.get(node), 0) / nodes.length;
}

/** Number of pairs of edges that cross, by insertion into the sorted ends. */
function crossings(layers, after, position) {
  let n = 0;
  for (const layer of layers) {
    const ends = [];
    for (const node of layer) {
      const mine = (after.get(node) ?? []).map((other) => position.get(other)).sort((a, b) => a - b);
      for (const end of mine) {
        let first = 0;
        let last = ends.length;
        while (first < last) {
          const middle = (first + last) >> 1;
          if (ends[middle] <= end) first = middle + 1;
          else last = middle;
        }
        n += ends.length - first;
      }
      for (const end of mine) {
        let at = ends.length;
        while (at > 0 && ends[at - 1] > end) at -= 1;
        ends.splice(at, 0, end);
      }
    }
  }
  return n;
}

/** Returns the middle of each node across the flow. */
function place(layers, { before, after }, breadth, gap) {
  const middle = new Map();
  for (const layer of layers) {
    let end = 0;
    for (const node of layer) {
      middle.set(node, end + breadth(node) / 2);
      end += breadth(node) + gap;
    }
  }
  for (let move = 0; move < MOVES; move += 1) {
    const isForward = move % 2 === 0;
    const rows = isForward ? layers : [...layers].reverse();
    for (const layer of rows) {
      const wanted = layer.map((node) => {
        const near = (isForward ? before : after).get(node) ?? [];
        const all = near.length ? near : [...(before.get(node) ?? []), ...(after.get(node) ?? [])];
        return meanOf(all, middle, middle.get(node));
      });
      spread(layer, wanted, breadth, gap).forEach((value, n) => middle.set(layer[n], value));
    }
  }
  const first = Math.min(...[...middle].map(([node, value]) => value - breadth(node) / 2), Infinity);
  for (const [node, value] of middle) middle.set(node, value - first);
  return middle;
}

/**
 * Nearest positions to those wanted that keep order and distance, by least squares: neighbours that would
 * overlap form a block, which lies where its nodes want it on average.
 */
function spread(layer, wanted, breadth, gap) {
  const offsets = [0];
  for (let n = 1; n < layer.length; n += 1) {
    offsets.push(offsets[n - 1] + breadth(layer[n - 1]) / 2 + gap + breadth(layer[n]) / 2);
  }
  const blocks = [];
  layer.forEach((_, n) => {
    let block = { sum: wanted[n] - offsets[n], size: 1 };
    while (blocks.length) {
      const last = blocks[blocks.length - 1];
      if (last.sum / last.size <= block.sum / block.size) break;
      block = { sum: last.sum + block.sum, size: last.size + block.size };
      blocks.pop();
    }
    blocks.push(block);
  });
  const starts = blocks.flatMap(({ sum, size }) => Array(size).fill(sum / size));
  return starts.map((start, n) => start + offsets[n]);
}
