import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.nio.file.StandardOpenOption;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.retry.RetryForever;

/** Curator's recipes, for locks.py: `Contender HOSTS latch|lock PATH ROUNDS WHO FILE`. */
public class Contender {
    static void note(String file, String line) throws Exception {
        Files.write(Paths.get(file), (line + "\n").getBytes(StandardCharsets.UTF_8),
                    StandardOpenOption.CREATE, StandardOpenOption.APPEND);
    }

    public static void main(String[] arguments) throws Exception {
        CuratorFramework client = CuratorFrameworkFactory.newClient(
            arguments[0], 6000, 6000, new RetryForever(50));
        client.start();
        int rounds = Integer.parseInt(arguments[3]);
        String who = arguments[4], file = arguments[5];
        for (int round = 0; round < rounds; round++) {
            if (arguments[1].equals("latch")) {
                LeaderLatch latch = new LeaderLatch(client, arguments[2], who);
                latch.start();
                if (!latch.await(60, TimeUnit.SECONDS)) throw new Exception("never leads");
                note(file, "begin " + who);
                Thread.sleep(20);
                note(file, "end " + who);
                latch.close();
            } else {
                InterProcessMutex lock = new InterProcessMutex(client, arguments[2]);
                if (!lock.acquire(60, TimeUnit.SECONDS)) throw new Exception("never held");
                note(file, "begin " + who);
                Thread.sleep(20);
                note(file, "end " + who);
                lock.release();
            }
        }
        client.close();
    }
}
