import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Map;
import org.apache.storm.Config;
import org.apache.storm.StormSubmitter;
import org.apache.storm.spout.SpoutOutputCollector;
import org.apache.storm.task.OutputCollector;
import org.apache.storm.task.TopologyContext;
import org.apache.storm.topology.OutputFieldsDeclarer;
import org.apache.storm.topology.TopologyBuilder;
import org.apache.storm.topology.base.BaseRichBolt;
import org.apache.storm.topology.base.BaseRichSpout;
import org.apache.storm.tuple.Fields;
import org.apache.storm.tuple.Tuple;
import org.apache.storm.tuple.Values;
import org.apache.storm.utils.TupleUtils;

/**
 * The job of ../throughput.rs for Storm: the same components, the same settings, the same files.
 *
 * Arguments: name of the topology, then settings as KEY=VALUE.
 */
public final class Throughput {
    static final String TEXT = "twenty bytes of text";

    /** Calls of the spout between two looks at the clock. */
    static final int BURST = 64;

    private Throughput() {}

    static Path file(Map<String, Object> settings, String name) {
        return Path.of((String) settings.get("bench.dir"), name);
    }

    static void append(Path file, String line) {
        try {
            Files.writeString(file, line + "\n", StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
    }

    /** Emits numbers from 0 as fast as it may, or the time at a given rate. */
    public static final class Numbers extends BaseRichSpout {
        private transient SpoutOutputCollector collector;
        private transient Path file;
        private long forNanos;
        private double perNano;
        private boolean isTracked;
        private long began;
        private long next;
        private boolean isOver;

        @Override
        public void open(Map<String, Object> settings, TopologyContext context, SpoutOutputCollector collector) {
            this.collector = collector;
            file = file(settings, "emitted");
            forNanos = (long) (((Number) settings.get("bench.seconds")).doubleValue() * 1e9);
            perNano = ((Number) settings.get("bench.rate")).doubleValue() / 1e9;
            isTracked = (Boolean) settings.get("bench.tracked");
        }

        @Override
        public void nextTuple() {
            if (isOver) {
                return;
            }
            if (perNano > 0) {
                emitWhatIsDue();
            } else {
                if (next % BURST == 0 && isTimeOver(System.nanoTime())) {
                    return;
                }
                emit(next);
            }
        }

        private void emitWhatIsDue() {
            long now = System.nanoTime();
            if (!isTimeOver(now) && next < (now - began) * perNano) {
                emit(System.nanoTime());
            }
        }

        private boolean isTimeOver(long now) {
            if (began == 0) {
                began = now;
            }
            if (now - began > forNanos) {
                isOver = true;
                append(file, next + " " + (perNano > 0 ? 0 : next * (next - 1) / 2));
            }
            return isOver;
        }

        private void emit(long number) {
            Values values = new Values(number, TEXT);
            if (isTracked) {
                collector.emit(values, next);
            } else {
                collector.emit(values);
            }
            next++;
        }

        @Override
        public void declareOutputFields(OutputFieldsDeclarer declarer) {
            declarer.declare(new Fields("number", "text"));
        }
    }

    /** Emits what it receives, as new values. */
    public static final class Pass extends BaseRichBolt {
        private transient OutputCollector collector;
        private boolean isTracked;

        @Override
        public void prepare(Map<String, Object> settings, TopologyContext context, OutputCollector collector) {
            this.collector = collector;
            isTracked = (Boolean) settings.get("bench.tracked");
        }

        @Override
        public void execute(Tuple tuple) {
            Values values = new Values(tuple.getLong(0), tuple.getString(1));
            if (isTracked) {
                collector.emit(tuple, values);
                collector.ack(tuple);
            } else {
                collector.emit(values);
            }
        }

        @Override
        public void declareOutputFields(OutputFieldsDeclarer declarer) {
            declarer.declare(new Fields("number", "text"));
        }
    }

    /** Sums the numbers, or counts the time that tuples took; each tick writes a line. */
    public static final class Sum extends BaseRichBolt {
        private transient OutputCollector collector;
        private transient Path file;
        private boolean isTracked;
        private boolean isPaced;
        private long n;
        private long sum;
        private transient int[] micros;

        @Override
        public void prepare(Map<String, Object> settings, TopologyContext context, OutputCollector collector) {
            this.collector = collector;
            file = file(settings, "received");
            isTracked = (Boolean) settings.get("bench.tracked");
            isPaced = ((Number) settings.get("bench.rate")).doubleValue() > 0;
            micros = new int[1_000_000];
        }

        @Override
        public void execute(Tuple tuple) {
            if (TupleUtils.isTick(tuple)) {
                tick();
                return;
            }
            n++;
            long number = tuple.getLong(0);
            if (isPaced) {
                long took = (System.nanoTime() - number) / 1000;
                micros[(int) Math.max(0, Math.min(took, micros.length - 1))]++;
            } else {
                sum += number;
            }
            if (isTracked) {
                collector.ack(tuple);
            }
        }

        private void tick() {
            String line = System.nanoTime() + " " + n + " " + sum;
            if (isPaced) {
                line += " " + quantile(0.5) + " " + quantile(0.99);
                java.util.Arrays.fill(micros, 0);
            }
            append(file, line);
        }

        /** Returns the quantile of the time since the last tick, in microseconds. */
        private long quantile(double share) {
            long count = 0;
            for (int value : micros) {
                count += value;
            }
            long left = (long) Math.ceil(count * share);
            for (int at = 0; at < micros.length; at++) {
                left -= micros[at];
                if (left <= 0) {
                    return at;
                }
            }
            return micros.length;
        }

        @Override
        public void declareOutputFields(OutputFieldsDeclarer declarer) {}

        @Override
        public Map<String, Object> getComponentConfiguration() {
            return Map.of(Config.TOPOLOGY_TICK_TUPLE_FREQ_SECS, 1);
        }
    }

    /** Submits the topology. */
    public static void main(String[] arguments) throws Exception {
        Config settings = new Config();
        for (int at = 1; at < arguments.length; at++) {
            String[] setting = arguments[at].split("=", 2);
            settings.put(setting[0], value(setting[1]));
        }
        TopologyBuilder topology = new TopologyBuilder();
        topology.setSpout("numbers", new Numbers());
        topology.setBolt("pass", new Pass()).shuffleGrouping("numbers");
        topology.setBolt("sum", new Sum()).shuffleGrouping("pass");
        StormSubmitter.submitTopology(arguments[0], settings, topology.createTopology());
    }

    private static Object value(String text) {
        if (text.equals("true") || text.equals("false")) {
            return Boolean.valueOf(text);
        }
        if (text.matches("-?[0-9]+")) {
            return Long.valueOf(text);
        }
        return text.matches("-?[0-9]+\\.[0-9]+") ? (Object) Double.valueOf(text) : text;
    }
}
